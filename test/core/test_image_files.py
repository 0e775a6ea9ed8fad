import cv2
import numpy as np
import pytest
from unusual_files import turned

from lightglue_ros.core import ImageError
from lightglue_ros.core.image_files import open_source


def test_a_folder_is_repeated_in_the_order_of_names_and_its_images_are_as_stored(tmp_path):
    jpeg = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
    (tmp_path / "2.jpg").write_bytes(turned(jpeg, orientation=8))
    for name, value in (("3", 7430), ("1", 500)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((2, 2), value, np.uint16))
    images = open_source(tmp_path)
    first, second, third, fourth = (images.next_image() for _ in range(4))
    assert (first[0, 0], second.shape, third[0, 0], fourth[0, 0]) == (500, (48, 64, 3), 7430, 500)
    assert images.passes == 1


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
