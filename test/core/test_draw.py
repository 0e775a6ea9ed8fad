import numpy as np

from lightglue_ros.core import PairMatches
from lightglue_ros.core.draw import (
    MOST_LINES,
    DrawnPair,
    ImageKeypoints,
    Style,
    draw_matches,
    draw_pairs,
    spread,
)


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


def random_matches(count, image_size, seed=0):
    random = np.random.default_rng(seed)
    points = random.uniform((0, 40), np.subtract(image_size, 1), (count, 2))
    return matches_at(points, points, random.uniform(0, 1, count))


def test_lines_are_at_most_200_and_evenly_over_the_image_and_the_best_of_each_place():
    """Nine tenths of the matches are on a hundredth of the image, as on a tree before a wall."""
    random = np.random.default_rng(0)
    points = random.uniform((0, 0), (640, 480), (1000, 2))
    points[100:] = random.uniform((0, 0), (64, 48), (900, 2))
    scores = random.uniform(0, 1, 1000)
    chosen = spread(points, scores, (640, 480), MOST_LINES)
    assert len(chosen) == len(set(chosen.tolist())) == MOST_LINES
    rare = set(range(100))
    assert len(rare & set(chosen.tolist())) >= 80
    crowded = np.setdiff1d(chosen, list(rare))
    assert scores[crowded].mean() > 0.8
    assert spread(points, scores, (640, 480), 1000).tolist() == list(range(1000))
    assert not len(spread(points, scores, (640, 480), 0))


def test_every_match_has_dots_and_only_some_have_lines_through_which_the_image_is_seen():
    matches = random_matches(300, (400, 300))
    grey = np.full((300, 400), 100, np.uint8)
    plain = np.full((300, 800, 3), 100, np.uint8)
    dots, few, many = (
        draw_matches(grey, grey, matches, "", style=Style(most_lines=lines)) for lines in (0, 20, 300)
    )
    for x, y in np.rint(matches.keypoints0).astype(int):
        for picture in (dots, few, many):
            assert (picture[y, x] != 100).any()
            assert (picture[y, x + 400] != 100).any()
    drawn = [np.count_nonzero((picture[40:] != plain[40:]).any(axis=-1)) for picture in (dots, few, many)]
    assert drawn[0] < drawn[1] < drawn[2]
    # The scores' colours have no blue: half of that of the image is left, and a little more at the soft edge.
    alone = draw_matches(grey, grey, matches_at([[200, 150]], [[200, 150]], [1.0]), "")
    assert 50 <= alone[150, 400, 2] <= 60


def test_small_disparities_are_blue_and_large_ones_red_and_outliers_magenta():
    black = np.zeros((200, 200), np.uint8)
    rows = np.arange(50, 150)
    points0 = np.stack([np.full(100, 150), rows], axis=1)
    points1 = points0 - np.stack([np.linspace(0, 100, 100), np.zeros(100)], axis=1)
    pair = matches_at(points0, points1, np.ones(100))
    inliers = rows != 100
    picture = draw_matches(black, black, pair, "", inliers, style=Style("disparity", 0))
    assert picture[50, 150].argmax() == 2
    assert picture[149, 150].argmax() == 0
    draw = draw_matches(black, black, matches_at([[9, 90]], [[9, 90]], [1.0]), "", np.zeros(1, bool))
    assert draw[90, 9].tolist() == [128, 0, 128]
    nothing = draw_matches(black, black, PairMatches.empty(), "", style=Style("disparity"))
    assert not nothing.any()


def test_keypoints_without_a_match_are_faint_dots_and_are_counted():
    black = np.zeros((100, 200), np.uint8)
    both = [ImageKeypoints(np.array([[50, y], [150, 60]], np.float32)) for y in (60, 80)]
    match = matches_at([[50, 60]], [[50, 80]], [1.0])
    picture = draw_matches(black, black, match, "", keypoints=tuple(both), style=Style(most_lines=0))
    assert picture[60, 50].tolist() == picture[80, 200 + 50].tolist() == [0, 255, 0]
    for x in (150, 200 + 150):
        assert picture[60, x].argmax() == 2
        assert 0 < picture[60, x].max() < 200
    assert draw_matches(black, black, match, keypoints=tuple(both))[:40].any()


def test_new_tracks_are_blue_and_old_ones_red_and_trails_go_through_their_last_positions():
    black = np.zeros((200, 200), np.uint8)
    positions = np.array([[20, 60], [120, 100], [120, 150]], np.float32)
    steps = np.float32([-10, 0]) * np.arange(1, 4)[:, None, None]
    trails = np.where(np.array([[False], [True], [True]]), positions + steps, np.float32(np.nan))
    trails[1, 2] = np.nan  # not seen in one frame
    of_image = ImageKeypoints(positions, np.array([1, 30, 4]), trails)
    match = matches_at(positions[:2], positions[:2], np.ones(2))
    picture = draw_matches(black, black, match, "", keypoints=(None, of_image), style=Style("age", 0))
    assert picture[60, 200 + 20].argmax() == 2
    assert picture[100, 200 + 120].argmax() == 0
    for row in (100, 150):
        assert picture[row, 200 + 91 : 200 + 117].any(axis=1).all()
        assert not picture[row, 200 : 200 + 85].any()
    assert not picture[60, 200 : 200 + 15].any()
    without = draw_matches(black, black, match, "", style=Style("age", 0))
    assert without[60, 20].tolist() == without[100, 120].tolist()


def test_a_low_picture_has_fewer_lines_so_that_the_image_is_seen():
    low, high = np.full((120, 600), 100, np.uint8), np.full((480, 600), 100, np.uint8)
    shares = []
    for image in (low, high):
        matches = random_matches(1000, (600, len(image)))
        dots, lines = (draw_matches(image, image, matches, "", style=Style(most_lines=n)) for n in (0, 200))
        shares.append(np.mean((lines != dots).any(axis=-1)))
    assert 0 < shares[0] < 1.2 * shares[1] < 1
