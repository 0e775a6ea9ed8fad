"""Photographs that fix the scales of int8; none is of the data that the accuracy is measured on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from lightglue_ros.core.image_files import read_image
from lightglue_ros.errors import ModelError
from lightglue_ros.export.selfcheck import Scene
from lightglue_ros.export.weights import MOTORCYCLE, PinnedFile, WheelMember, fetch

# Of the wheel that holds the pictures of the self-check as well.
PHOTOGRAPHS = tuple(
    PinnedFile(name, sha256, WheelMember("scikit-image==0.25.2", f"skimage/data/{name}"))
    for name, sha256 in (
        ("astronaut.png", "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5"),
        ("brick.png", "7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf"),
        ("camera.png", "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a"),
        ("chelsea.png", "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb"),
        ("coffee.png", "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7"),
        ("rocket.jpg", "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c"),
    )
)
CANVAS = 640, 480  # width and height
# Most keypoints of an image. XFeat with 1024 slots keeps 0.98 of the right matches of fp32 on KITTI if its
# ranges are those of the best 512 keypoints, and 0.89 with those of 1024.
CALIBRATION_KEYPOINTS = 512
MOST_OFFSET = 0.12  # of a corner of the second view, as a share of the image's size
SEED = 0


def calibration_scenes(others: Sequence[Scene], report: Callable[[str], None]) -> Sequence[Scene]:
    """Return a stereo pair and two views of each photograph, or the others if a download fails."""
    try:
        left, right, *files = (file.path for file in fetch((*MOTORCYCLE, *PHOTOGRAPHS), report))
    except ModelError as error:
        report(f"int8 takes its scales from the pictures of the check and may keep fewer matches: {error}")
        return others
    random = np.random.default_rng(SEED)
    photographs = [read_image(file) for file in files]
    views = [[image, _seen_from_elsewhere(image, random)] for image in photographs]
    views.append([read_image(left), read_image(right)])
    return [Scene("photographs", both, [(0, 1)], CANVAS) for both in views]


def _seen_from_elsewhere(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Turn an image in space, and change its brightness and noise."""
    height, width = image.shape[:2]
    corners = np.float32([[0, 0], [width, 0], [width, height], [0, height]])
    offsets = random.uniform(-MOST_OFFSET, MOST_OFFSET, (4, 2)) * (width, height)
    homography = cv2.getPerspectiveTransform(corners, np.float32(corners + offsets))
    turned = cv2.warpPerspective(image, homography, (width, height)).astype(np.float32)
    changed = turned * random.uniform(0.7, 1.2) + random.normal(0, 3, turned.shape)
    return changed.clip(0, 255).astype(np.uint8)
