import numpy as np

from lightglue_ros.core import PairMatches
from lightglue_ros.core.draw import DrawnPair, draw_pairs


def matches_at(points0, points1, scores):
    indices = np.arange(len(scores), dtype=np.int32)
    points0, points1 = np.array(points0, np.float32), np.array(points1, np.float32)
    return PairMatches(points0, points1, np.array(scores, np.float32), indices, indices, 6)


def test_pairs_of_any_sizes_are_drawn_one_below_the_other_and_matches_stay_where_they_were():
    large = np.full((400, 1000, 3), 50, np.uint8)
    grey = np.full((100, 100), 50, np.uint8)
    pairs = [
        DrawnPair("", large, large, matches_at([[500, 300]], [[100, 200]], [1.0])),
        DrawnPair("", grey, grey, matches_at([[50, 60]], [[50, 60]], [0.0])),
    ]
    picture = draw_pairs(pairs, longest_side=500)
    assert picture.shape == (200 + 100, 500 + 500, 3)
    green, red = [0, 255, 0], [255, 0, 0]
    # Both ends of both matches, the large images at half their size.
    assert picture[150, 250].tolist() == picture[100, 500 + 50].tolist() == green
    assert picture[200 + 60, 50].tolist() == picture[200 + 60, 100 + 50].tolist() == red
    assert np.all(picture[200:, 200:] == 0)


def test_a_title_is_written_and_nothing_else_without_matches():
    black = np.zeros((60, 200), np.uint8)
    plain, titled = (
        draw_pairs([DrawnPair(title, black, black, PairMatches.empty())], 640)
        for title in ("", "left:right missing")
    )
    assert not plain.any()
    assert titled[:40].any()
    assert not titled[40:].any()
