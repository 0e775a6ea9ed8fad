"""Masks of the cameras of a rig: those that stay, those that change, and those that are too old."""

import cv2
import numpy as np
from pixel_image import PixelImage

from lightglue_ros.core.masks import Mask
from lightglue_ros.core.mono16 import Mono16Range
from lightglue_ros.errors import ImageError
from lightglue_ros.rig.frame import FrameSettings, RigFrame
from lightglue_ros.rig.masks import CameraMasks
from lightglue_ros.rig.processor import FrameProcessor
from lightglue_ros.rig.rig import Rig

IMAGE = np.zeros((30, 40), np.uint8)
SECOND = 10**9
SIZE = (320, 216)


def half(side, size=(40, 30)):
    """A mask that is black on one side."""
    mask = np.ones(size[::-1], np.uint8)
    mask[:, {"left": slice(size[0] // 2), "right": slice(size[0] // 2, None)}[side]] = 0
    return Mask(mask, f"mask of the {side}")


def at(masks, stamp, image=IMAGE):
    """The mask of the first camera at a time."""
    return masks.of_frame([stamp], [image])[0]


def test_the_newest_mask_near_the_image_is_used_and_without_one_the_camera_goes_on_and_says_so():
    masks, newest = CameraMasks([None], ["/left/mask"], 0.5), half("left")
    assert at(masks, 0) is None
    assert "no mask has come on /left/mask" in masks.problems[0]
    for seconds in (0.0, 0.5, -0.5):
        masks.take(0, 10 * SECOND, lambda: newest)
        assert at(masks, 10 * SECOND + int(seconds * SECOND)) is newest
        assert masks.problems == [""]
    for seconds, when in ((0.6, "before"), (-0.6, "after")):
        assert at(masks, 10 * SECOND + int(seconds * SECOND)) is None
        assert (
            f"newest mask on /left/mask is of 0.60 s {when} the image; allowed: up to 0.5"
            in masks.problems[0]
        )
    masks.forget(0)
    assert at(masks, 10 * SECOND) is None
    assert masks.of_frame([None], [None]) == [None]


def test_a_mask_that_stays_and_one_that_changes_are_black_where_one_of_them_is():
    staying = half("left", (80, 60))
    masks = CameraMasks([staying], ["/mask"], 0.5)
    assert at(masks, 0) is staying
    for side in ("left", "right"):
        newest = half(side)
        masks.take(0, 0, lambda newest=newest: newest)
        joined = at(masks, 0)
        assert at(masks, 1) is joined
        expected = staying.on_canvas((40, 30)) & newest.on_canvas((40, 30))
        np.testing.assert_array_equal(joined.on_canvas((40, 30)), expected)
        points = np.array([[5.0, 5.0], [35.0, 5.0]])
        assert joined.allows(points, (40, 30)).tolist() == [False, side == "left"]


def test_a_broken_mask_and_one_of_another_aspect_are_named_and_the_other_one_is_used():
    made = []

    def broken():
        made.append(1)
        raise ImageError("the mask on /mask is broken")

    staying = half("left")
    masks = CameraMasks([staying], ["/mask"], 0.5)
    masks.take(0, 0, broken)
    assert at(masks, 0) is at(masks, 1) is staying
    assert (masks.problems, len(made)) == (["the mask on /mask is broken"], 1)
    wide = half("right", (90, 30))
    masks.take(0, 0, lambda: wide)
    assert at(masks, 0) is staying
    assert "mask of the right has 90x30 pixels, which is another aspect" in masks.problems[0]
    assert at(masks, 0, np.zeros((10, 30), np.uint8)) is wide
    assert "mask of the left has 40x30 pixels, which is another aspect" in masks.problems[0]


def test_masks_hold_for_present_and_past_images_of_a_rig_and_for_refined_matches(pipeline, motorcycle):
    left, right = (cv2.resize(image, SIZE, interpolation=cv2.INTER_AREA) for image in motorcycle)
    rig = Rig.parse(["a", "b"], ["a:b", "a@-1:a"])
    settings = FrameSettings(rig, (320, 224), 300, 0.1, Mono16Range())
    # Fine bars: many matches would move into the black by fractions of a pixel.
    bars = np.ones(SIZE[::-1], np.uint8)
    bars[:, ::4] = 0
    masks = CameraMasks([Mask(bars)] * 2, [""] * 2, 0.5)
    processor = FrameProcessor(pipeline, settings, masks=masks)
    images = tuple(map(PixelImage, (left, right)))
    for _ in range(2):
        result = processor.process(RigFrame(images, (0, 0), epochs=(0, 0)), settings)
    assert masks.problems == [""] * 2
    for pair in result.pairs:
        assert len(pair.matches) > 30
        assert pair.matches.checked.any()
        for keypoints in (pair.matches.keypoints0, pair.matches.keypoints1):
            x, y = np.floor(keypoints + 0.5).astype(int).T
            assert bars[y, np.minimum(x, SIZE[0] - 1)].all()
