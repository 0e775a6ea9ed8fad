"""References of a matched bag."""

import numpy as np
import pytest
from video_reading import read_video

pytest.importorskip("rosbags", reason="no rosbags here (pip install rosbags)")
from recordings import decoded_matches, pictures, stereo, write_bag

from lightglue_ros.core.draw import Style
from lightglue_ros.core.image_files import write_image
from lightglue_ros.rosdata.drawing import draw_message

FRAMES = 20


def test_a_reference_of_a_bag_is_that_of_the_node_and_part_of_what_the_output_was_made_of(
    motorcycle, match_here, tmp_path
):
    """The places are what the left camera sees in frames 3 and 15; the second chunk has them as well."""
    bag = write_bag(tmp_path / "drive", "mcap", stereo(motorcycle, frames=FRAMES))
    places = tmp_path / "places"
    places.mkdir()
    for number in (3, 15):
        write_image(places / f"{number}.png", pictures(motorcycle, number)[0])
    arguments = (bag, "-o", tmp_path / "matched", "--matches-only", "--video", tmp_path / "video.mp4")
    given = ("-p", f"references:=['places:{places}']", "-p", "pairs:=['left:places', 'left:places@2']")
    status, _, said = match_here(*arguments, *given)
    assert status == 0, said
    messages = decoded_matches(tmp_path / "matched")
    named = [[pair.frame_id1 for pair in message.pairs] for message in messages]
    assert [named[number] for number in (3, 15)] == [["3.png", "15.png"], ["15.png", "3.png"]]
    assert all(pair.stamp1.sec == 0 and pair.camera1 == "places" for m in messages for pair in m.pairs)
    shown = read_video(tmp_path / "video.mp4")[1][3].astype(int)
    seen = {number: pictures(motorcycle, number)[0] for number in (3, 15)}
    drawn, without = (
        draw_message(messages[3], [(seen[3], first), (seen[3], second)], Style())
        for first, second in ((seen[3], seen[15]), 2 * [np.zeros_like(seen[3])])
    )
    # What the codec loses is less than the pictures of the places.
    assert np.abs(shown - drawn).mean() < 0.5 * np.abs(shown - without).mean()

    write_image(places / "15.png", pictures(motorcycle, 10)[0])
    status, _, said = match_here(*arguments, *given)
    assert status == 1
    assert "was not made of bag" in said
    (places / "15.png").write_bytes(b"no image")
    status, _, said = match_here(bag, "-o", tmp_path / "other", *given)
    assert status == 1
    assert "parameter references has 'places', whose image is broken" in said
