"""Sizes and encodings of the cameras' images, for `/diagnostics` and the log's line about the first frame.

Everything here is called in the executor's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from lightglue_ros.core import MatchPipeline
from lightglue_ros.core.canvas import Placement
from lightglue_ros.core.rotation import turned_size
from lightglue_ros.msg import Features
from lightglue_ros.nodes.status import PAIR, MatcherStatus, keypoints_of
from lightglue_ros.nodes.watch import InputWatch
from lightglue_ros.rosdata.decoding import CameraImage

# Cameras that start later than this after the first frame are missing in the line about it, in seconds.
LONGEST_WAIT = 10
# Stands for the encoding where features come in place of images.
_FEATURES = "features"


class ImageFormats:
    """Knows the size and the encoding of each camera's newest image.

    Args:
        rotations: returns how the cameras' images are turned before extraction; empty if none is.
    """

    def __init__(
        self,
        node: Node,
        pipeline: MatchPipeline,
        cameras: list[str],
        rotations: Callable[[], Sequence[int]],
    ) -> None:
        self._node = node
        self._pipeline = pipeline
        self._cameras = cameras
        self._rotations = rotations
        self._formats: dict[int, tuple[int, int, str]] = {}
        self._was_complete = self._is_logged = False
        self._looks = 0

    def take(self, camera: int, image: CameraImage, message: Image | CompressedImage | Features) -> None:
        """Note the format of an image that can be used."""
        encoding = _FEATURES
        if not isinstance(message, Features):
            encoding = message.encoding if isinstance(message, Image) else message.format
        self._formats[camera] = (image.width, image.height, encoding)

    def canvases(self) -> dict[str, str]:
        """Return the values for `/diagnostics`: the largest canvas, and that of each camera's images."""
        used = {
            f"camera {self._cameras[camera]} canvas": _size(
                self._placement(camera, width, height).canvas_size
            )
            for camera, (width, height, encoding) in sorted(self._formats.items())
            if encoding != _FEATURES
        }
        rotations = {
            f"camera {name} rotation (degrees)": str(rotation)
            for name, rotation in zip(self._cameras, self._rotations(), strict=False)
        }
        return {"canvas": _size(self._pipeline.image_size), **used, **rotations}

    def _placement(self, camera: int, width: int, height: int) -> Placement:
        rotations = self._rotations()
        return self._pipeline.placement(turned_size((width, height), rotations[camera] if rotations else 0))

    def log_first_frame(self, status: MatcherStatus, inputs: InputWatch) -> None:
        """Log once what the cameras send and what was matched, a second after the first frame.

        Called once per second. After a second the rates of the cameras are known. The line waits for cameras
        that start later.
        """
        if self._is_logged or not status.matched:
            return
        self._looks += 1
        was_complete, self._was_complete = self._was_complete, len(self._formats) == len(self._cameras)
        if not was_complete and self._looks <= LONGEST_WAIT:
            return
        self._is_logged = True
        numbers = status.numbers
        cameras = [
            f"{self._describe(camera, inputs.period(camera))}, {numbers[keypoints_of(name)]} keypoints"
            for camera, name in enumerate(self._cameras)
        ]
        pairs = [f"{it.removeprefix(PAIR)} {count}" for it, count in numbers.items() if it.startswith(PAIR)]
        milliseconds = status.milliseconds()[-1, :2].sum()
        self._node.get_logger().info(
            f"first frame: {'; '.join(cameras + pairs)}; {milliseconds:.0f} ms per frame, model "
            f"{self._pipeline.info.model} on {self._pipeline.provider}"
        )

    def _describe(self, camera: int, period: float) -> str:
        """Describe the images of a camera."""
        if camera not in self._formats:
            return f"{self._cameras[camera]} missing"
        width, height, encoding = self._formats[camera]
        text = f"{self._cameras[camera]} {width}x{height} {encoding}"
        if period:
            text += f" at {1.0 / period:.1f} Hz"
        if encoding != _FEATURES:
            placement = self._placement(camera, width, height)
            text += f" on a canvas of {_size(placement.canvas_size)} ({100 * placement.used:.0f}% used)"
        return text


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
