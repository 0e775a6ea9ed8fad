"""References of the running matcher."""

import cv2
import numpy as np
import pytest

from lightglue_ros.core.image_files import write_image
from lightglue_ros.nodes.processes import node_process
from lightglue_ros.rosdata.messages import message_to_inliers


@pytest.fixture
def stored(motorcycle, tmp_path):
    """A folder with the motorcycle's left image and its mirror image; the first one is the dock."""
    left = motorcycle[0]
    write_image(tmp_path / "1.png", np.ascontiguousarray(left[:, ::-1]))
    write_image(tmp_path / "2.png", left)
    return tmp_path


def test_the_message_of_a_reference_has_its_file_its_size_no_stamp_and_the_matrix_of_the_plane(
    robot, motorcycle, stored
):
    rig = robot(
        ["front"],
        references=[f"dock:{stored / '2.png'}", f"places:{stored}"],
        pairs=["front:dock", "front:places", "places@2:front"],
        verification="homography",
        drawing_rate=100.0,
        publish_tracks=True,
    )
    seen = cv2.warpAffine(motorcycle[0], np.array([[1.0, 0.0, 30.0], [0.0, 1.0, -20.0]]), (741, 500))
    message = rig.match({"front": seen})
    dock, best, second = message.pairs
    for pair in (dock, best):
        assert (pair.camera0, pair.frame_id0) == ("front", "front_optical")
        assert pair.stamp0 == message.header.stamp
        assert (pair.frame_id1, pair.width1, pair.height1) == ("2.png", 741, 500)
        assert (pair.stamp1.sec, pair.stamp1.nanosec) == (0, 0)
        moves = np.asarray(pair.matrix).reshape(3, 3)
        np.testing.assert_allclose(moves / moves[2, 2], [[1, 0, -30], [0, 1, 20], [0, 0, 1]], atol=0.5)
    assert [pair.camera1 for pair in message.pairs] == ["dock", "places", "front"]
    assert (second.camera0, second.frame_id0) == ("places", "1.png")
    assert message_to_inliers(best).sum() > message_to_inliers(second).sum()
    values = rig.wait_for_diagnostics()
    assert values["missing cameras"] == ""
    assert int(values["pair front:places inliers"]) > int(values["pair places@2:front inliers"])

    # The matcher and a viewer draw the file.
    pictures = rig.look()
    rig.repeat_until(lambda: rig.show({"front": seen}), lambda: pictures, "a picture")
    given = {"cameras": ["front"], "image_topics": ["front/image_rect"], "drawing_rate": 100.0}
    given["references"] = [f"dock:{stored / '2.png'}", f"places:{stored}"]
    with node_process("viewer", given) as viewer:
        rig.processes.append(viewer)
        rig.wait_until(lambda: rig.count_publishers("matches/image") == 2, "the viewer")
        by_matcher = bytes(pictures[-1].data)
        count = rig.match_until_a_viewer_draws({"front": seen})
        pictures.clear()
        rig.repeat_until(
            lambda: rig.show({"front": seen}),
            lambda: any(bytes(picture.data) == by_matcher for picture in pictures),
            "the same picture",
        )
        assert rig.wait_for_diagnostics()["pictures drawn"] == count


def test_a_broken_reference_is_named_when_the_node_starts(failing, model_folder, stored):
    (stored / "2.png").write_bytes(b"no image")
    rig = {"cameras": ["front"], "image_topics": ["front/image_rect"], "pairs": ["front:dock"]}
    line = failing("matcher", references=[f"dock:{stored / '2.png'}"], **rig)
    assert "parameter references has 'dock', whose image is broken" in line
