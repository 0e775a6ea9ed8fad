"""Masks of a bag: a file and a topic, with which every chunk matches its frames as a node would."""

import cv2
import numpy as np
from recordings import DELAY, SIZE, decoded_matches, image_message, stamp_of, stereo, write_bag

FRAMES = 40
MASKED = range(10, 30)  # Chunks begin at 16 and 32.


def test_masks_hold_for_their_frames_in_all_chunks_and_frames_without_are_a_finding(
    motorcycle, match_here, tmp_path
):
    left_half = np.full(SIZE[::-1], 255, np.uint8)
    left_half[:, : SIZE[0] // 2] = 0
    cv2.imwrite(str(tmp_path / "upper.png"), left_half[:, ::-1])
    rows = [*stereo(motorcycle, frames=FRAMES)]
    # A segmentation that is as fast as the camera, and whose result comes between two frames.
    rows += [
        ("/left/mask", image_message(left_half, "left", stamp_of(it)), stamp_of(it) + 4 * DELAY)
        for it in MASKED
    ]
    rows.sort(key=lambda row: row[2])
    bag = write_bag(tmp_path / "bag", "mcap", rows)
    masks = ["-p", "mask_topics:=['left/mask', '']", "-p", "mask_max_age:=0.06"]
    masks += ["-p", f"mask_files:=['', '{tmp_path / 'upper.png'}']"]
    status, out, _ = match_here(bag, "-o", tmp_path / "matched", *masks)
    assert status == 0
    # The first and the last frames have no mask of the time.
    without = FRAMES - len(MASKED)
    assert (
        f"camera left is matched without a mask in {without} frames, such as: no mask has come on /left/mask"
        in out
    )
    messages = decoded_matches(tmp_path / "matched")
    assert len(messages) == FRAMES
    for number, message in enumerate(messages):
        stereo_pair, through_time = message.pairs
        x0, x1 = (np.reshape(it, (-1, 2))[:, 0] for it in (stereo_pair.keypoints0, stereo_pair.keypoints1))
        assert (x1 < SIZE[0] // 2).all()
        is_masked = number - 1 in MASKED
        assert (len(x0) == 0 or x0.min() >= SIZE[0] // 2 - 0.5) if is_masked else x0.min() < SIZE[0] // 2
        for keypoints, of in ((through_time.keypoints0, number - 1), (through_time.keypoints1, number)):
            if of - 1 in MASKED and len(keypoints):
                assert np.reshape(keypoints, (-1, 2))[:, 0].min() >= SIZE[0] // 2 - 0.5


def test_a_file_that_is_no_mask_ends_the_run_before_its_work(recorded, match_here, tmp_path):
    status, _, said = match_here(
        recorded["mcap"], "-o", tmp_path / "out", "-p", "mask_files:=['/nowhere/arm.png', '']"
    )
    assert status == 1
    assert "parameter mask_files, camera left: there is no image file /nowhere/arm.png" in said
    assert len(said.strip().splitlines()) == 1
