"""`lightglue_ros match --mask`: a file for all images, or a folder with files for some."""

import json

import cv2
import numpy as np
import pytest


@pytest.fixture(scope="module")
def half(folder, tmp_path_factory):
    """A mask whose upper half is black, of a third of the size of the first two images."""
    height, width = cv2.imread(str(folder / "a.png")).shape[:2]
    mask = np.full((round(height / 3), round(width / 3)), 255, np.uint8)
    mask[: len(mask) // 2] = 0
    path = tmp_path_factory.mktemp("masks") / "a.png"
    cv2.imwrite(str(path), mask)
    return path


def test_a_file_masks_all_images_and_a_folder_those_that_it_names(match, folder, half, tmp_path):
    limit = cv2.imread(str(folder / "a.png")).shape[0] / 2 - 2
    turns = "--rotations", "auto"
    for masks, are_masked, words in ((half, (True, True), turns), (half.parent, (True, False), ())):
        file = tmp_path / f"{masks.name}.json"
        match(folder / "a.png", folder / "b.png", "--mask", masks, "--json", file, *words)
        (pair,) = json.loads(file.read_text())
        assert len(pair["scores"]) > 100
        for name, is_masked in zip(("keypoints0", "keypoints1"), are_masked, strict=True):
            assert not is_masked or np.array(pair[name])[:, 1].min() > limit


def test_a_mask_of_another_aspect_leaves_its_image_out_and_a_wrong_one_ends_the_run(
    run, error_of, folder, half, tmp_path
):
    status, out, log = run(folder, "--mask", half)
    assert status == 1
    assert "b.png" in out
    assert f"left out: mask {half} has 247x167 pixels, which is another aspect" in log
    assert "there is no image file" in error_of(folder, "--mask", folder / "none.png")
    cv2.imwrite(str(tmp_path / "z.png"), np.ones((3, 3), np.uint8))
    assert "has no mask of any of the images; allowed: files such as a.png" in error_of(
        folder, "--mask", tmp_path
    )
    words = "--against", folder, "--h5", tmp_path / "kept.h5", "--mask", half
    assert "--mask and --against with --h5 do not go together" in error_of(folder / "a.png", *words)
