import cv2
import numpy as np
import pytest
from unusual_files import turned

from lightglue_ros.core import ImageError
from lightglue_ros.core.image_files import open_source


def test_a_folder_is_repeated_in_the_order_of_names(tmp_path):
    for value in (30, 10, 20):
        cv2.imwrite(str(tmp_path / f"{value}.png"), np.full((2, 2), value, np.uint8))
    images = open_source(tmp_path)
    assert [int(images.next_image()[0, 0]) for _ in range(4)] == [10, 20, 30, 10]
    assert images.passes == 1


def test_files_of_any_orientation_and_depth_are_given_as_stored(tmp_path):
    jpeg = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
    (tmp_path / "1.jpg").write_bytes(turned(jpeg, orientation=8))
    cv2.imwrite(str(tmp_path / "2.png"), np.full((4, 6), 7430, np.uint16))
    images = open_source(tmp_path)
    assert images.next_image().shape == (48, 64, 3)
    np.testing.assert_array_equal(images.next_image(), np.full((4, 6), 7430, np.uint16))


def test_what_is_no_source_is_refused(tmp_path):
    torn = tmp_path / "torn.avi"
    torn.write_bytes(b"RIFF and no more")
    (tmp_path / "empty").mkdir()
    for path, says in (
        (torn, "cannot be read as a video"),
        (tmp_path / "none.mp4", "no video file"),
        (tmp_path / "none.png", "no image file"),
        (tmp_path / "empty", "holds no images"),
    ):
        with pytest.raises(ImageError, match=says):
            open_source(path)
