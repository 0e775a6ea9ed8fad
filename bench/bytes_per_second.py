"""Bytes per message and per second that cameras, extractors and the matcher send.

    . tools/env.sh
    python bench/bytes_per_second.py [--models xfeat disk aliked] [--hz 10]

Of the motorcycle pair at 640x480, serialised as they go over the network; without what DDS adds. Images and
features are those of one camera, matches those of one pair. Beside the features: how many matches stay the
same when they go through such a message.
"""

import argparse
from collections.abc import Sequence

import cv2
import numpy as np
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from lightglue_ros.cli.bench import camera_images
from lightglue_ros.core import Features, MatchPipeline, PairMatches
from lightglue_ros.core.mono16 import Mono16Range
from lightglue_ros.nodes.conversions import array_to_image, result_to_message
from lightglue_ros.nodes.features import check_features, features_to_message
from lightglue_ros.rig.frame import FrameResult, FrameSettings, RigPair
from lightglue_ros.rig.rig import Rig
from lightglue_ros.rosdata.decoding import CameraImage

SIZE = (640, 480)
HEADER = Header(frame_id="left_optical")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["xfeat"])
    parser.add_argument("--hz", type=float, default=10.0)
    arguments = parser.parse_args()
    images = camera_images(SIZE)
    print(f"| message | bytes | MB/s at {arguments.hz:g} Hz |\n| --- | ---: | ---: |")
    rows = image_rows(images[0])
    for model in arguments.models:
        rows += model_rows(model, images)
    for name, size in rows:
        print(f"| {name} | {size} | {1e-6 * size * arguments.hz:.2f} |")


def image_rows(image: np.ndarray) -> list[tuple[str, int]]:
    """Names and bytes of messages with an image."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    large = cv2.resize(image, (1920, 1080))
    return [
        ("image 640x480 mono8", size_of(array_to_image(grey, HEADER))),
        ("image 640x480 mono8, JPEG", size_of(jpeg(grey))),
        ("image 640x480 rgb8", size_of(array_to_image(image, HEADER))),
        ("image 1920x1080 rgb8", size_of(array_to_image(large, HEADER))),
        ("image 1920x1080 rgb8, JPEG", size_of(jpeg(large))),
    ]


def model_rows(model: str, images: Sequence[np.ndarray]) -> list[tuple[str, int]]:
    """Names and bytes of messages with features and matches of a model."""
    pipeline = MatchPipeline(model, "cpu", SIZE)
    features = pipeline.extract(images)
    (exact,) = pipeline.match_features(features, [(0, 1)])
    rows = []
    for precision in ("fp32", "fp16"):
        messages = [
            features_to_message(features.of_image(slot), HEADER, "left", pipeline.info, precision)
            for slot in range(2)
        ]
        received = [
            check_features(message, pipeline.info, pipeline.max_keypoints).decode(None)
            for message in messages
        ]
        (found,) = pipeline.match_features(Features.concatenate(received), [(0, 1)])
        same = len(as_set(found) & as_set(exact))
        keypoints = len(messages[0].scores)
        name = (
            f"features {model}, {keypoints} keypoints, {precision} ({same} of {len(exact)} matches the same)"
        )
        rows.append((name, size_of(messages[0])))
    rig = Rig.parse(["left", "right"], ["left:right"])
    image = CameraImage(HEADER, *SIZE, decode=None)
    settings = FrameSettings(rig, SIZE, None, pipeline.match_threshold, Mono16Range())
    result = FrameResult(settings, [image, image], [None, None], [], [RigPair(image, image, exact)])
    matches = result_to_message(result, model)
    return [*rows, (f"matches {model}, {len(exact)} of them", size_of(matches))]


def as_set(matches: PairMatches) -> set[tuple[int, int]]:
    """The two indices of each match."""
    return set(zip(matches.indices0.tolist(), matches.indices1.tolist(), strict=True))


def jpeg(image: np.ndarray) -> CompressedImage:
    """A message as image_transport makes it, quality 95."""
    bgr = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])
    return CompressedImage(header=HEADER, format="jpeg", data=data.tobytes())


def size_of(message: object) -> int:
    """Bytes of a message, serialised."""
    return len(serialize_message(message))


if __name__ == "__main__":
    main()
