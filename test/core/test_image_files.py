from contextlib import contextmanager, suppress

import cv2
import numpy as np
import pytest
from unusual_files import turned

from lightglue_ros.core import ConfigError, ImageError
from lightglue_ros.core.files import written_whole
from lightglue_ros.core.image_files import find_images, list_images, open_source, read_image, write_image


def test_a_folder_is_repeated_in_order_and_its_images_are_as_stored_or_an_error(tmp_path):
    jpeg = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
    (tmp_path / "2.jpg").write_bytes(turned(jpeg, orientation=8))
    for name, value in (("3", 7430), ("1", 500)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((2, 2), value, np.uint16))
    images = open_source(tmp_path)
    first, second, third, fourth = (images.next_image() for _ in range(4))
    assert (first[0, 0], second.shape, third[0, 0], fourth[0, 0]) == (500, (48, 64, 3), 7430, 500)
    assert images.passes == 1
    (tmp_path / "2.jpg").write_bytes(jpeg[:100])
    damaged, third = images.next_image(), images.next_image()
    assert isinstance(damaged, ImageError)
    assert third[0, 0] == 7430


def test_images_are_sorted_by_the_numbers_in_their_names(tmp_path):
    names = ["1.png", "2.png", "10.png", "a1b2.png", "a1b10.png", "a10b1.png", "\u0663.png"]
    for name in reversed(names):
        cv2.imwrite(str(tmp_path / name), np.zeros((2, 2), np.uint8))
    assert [path.name for path in list_images(tmp_path)] == [*names[:2], "\u0663.png", *names[2:-1]]
    assert find_images([tmp_path / "*.png"]) == list_images(tmp_path)


@pytest.mark.parametrize(("suffix", "most"), [(".jpg", 65500), (".JPG", 65500), (".webp", 16383)])
def test_an_image_too_wide_for_its_format_is_called_that_and_leaves_no_file(tmp_path, suffix, most):
    path = tmp_path / f"wide{suffix}"
    for shape in ((2, most, 3), (2, most + 1, 3)):
        image = np.zeros(shape, np.uint8)
        if shape[1] == most:
            write_image(path, image)
            assert read_image(path).shape == shape
            path.unlink()
    says = f"the image has {most + 1}x2 pixels; allowed: at most {most} across and down"
    with pytest.raises(ImageError, match=says):
        write_image(path, image)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_not_written_to_its_end_is_not_there(tmp_path):
    @contextmanager
    def lines(path):
        with path.open("w") as file:
            yield lambda line: file.write(line)
            file.write("end")

    files = {tmp_path / name: lines for name in ("one", "other")}
    with suppress(KeyboardInterrupt), written_whole(files) as add:
        add("begin ")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    with written_whole(files) as add:
        add("begin ")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(
        ("one", "other"), "begin end"
    )
    # A folder of this name cannot be replaced: then the other file keeps what it had.
    (tmp_path / "one").unlink()
    (tmp_path / "one").mkdir()
    says = f"cannot write {tmp_path / 'one'}: Is a directory"
    with pytest.raises(ConfigError, match=says), written_whole(files) as add:
        add("more ")
    assert (tmp_path / "other").read_text() == "begin end"


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
