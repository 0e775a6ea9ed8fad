"""`lightglue_ros bench`: measure where the time of a stereo frame goes, and the rate of the running node."""

from __future__ import annotations

import argparse
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from tabulate import tabulate

from lightglue_ros.cli.arguments import add_model_arguments, matcher_parameters, positive
from lightglue_ros.core import MatchPipeline
from lightglue_ros.core.image_files import read_image, write_image
from lightglue_ros.core.providers import onnxruntime
from lightglue_ros.core.row_threads import usable_cores
from lightglue_ros.rosdata.parameter_files import parameters_from, parse_changes

if TYPE_CHECKING:
    from builtin_interfaces.msg import Time

    from lightglue_ros.msg import Matches
    from lightglue_ros.nodes.listener import Listener

START_SECONDS = 30.0
# Faster than the node on small machines, so that the node and not the cameras limits the rate.
CAMERA_HZ = 30.0
# A node that drops a smaller share of the frames has time left.
LEAST_DROPPED = 0.05


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_model_arguments(command)
    frames = "stereo frames to measure (50)"
    command.add_argument("--frames", type=positive, default=50, metavar="N", help=frames)
    rate = f"images per second of each camera of the running node ({CAMERA_HZ:g})"
    command.add_argument("--rate", type=positive, default=CAMERA_HZ, metavar="HZ", help=rate)
    param = "a parameter of the node, such as num_threads:=2; may be repeated"
    command.add_argument("-p", "--param", action="append", default=[], metavar="NAME:=VALUE", help=param)


def run(arguments: argparse.Namespace) -> int:
    """Measure on the motorcycle pair and print tables; the node's only where ROS 2 is installed."""
    frames = arguments.frames
    parameters = matcher_parameters(arguments) | parse_changes(arguments.param)
    settings = parameters_from(parameters)
    pipeline = settings.load()
    images = camera_images(settings.frame.image_size)
    width, height = pipeline.image_size
    print(machine())
    print(
        f"{pipeline.info.model}, {pipeline.info.precision}, {pipeline.provider}, stereo {width}x{height}, "
        f"at most {pipeline.max_keypoints} keypoints, {frames} frames, "
        f"threads spin {'as long as they wait' if settings.spin_threads else 'for 5 µs at most'}"
    )
    if arguments.param:
        print(f"with {', '.join(arguments.param)}")
    if pipeline.fallback_warning:
        print(pipeline.fallback_warning, flush=True)
    _print_medians("in this process", time_stages(pipeline, images, frames))
    try:
        import rclpy  # noqa: F401
    except ImportError:
        print("running node: not measured, no ROS 2 here")
        return 0
    with running_matcher(parameters, images) as matcher:
        figures = matcher.measure(frames, float(arguments.rate))
    seconds = {
        "inside ONNX Runtime": figures.inference,
        "outside ONNX Runtime": figures.outside,
        "image stamp to matches": figures.latency,
    }
    _print_medians(f"running node, cameras at {arguments.rate:g} Hz", seconds)
    limit = ", limited by the cameras (try a higher --rate)" if figures.dropped < LEAST_DROPPED else ""
    print(f"{figures.rate:.1f} Hz{limit}")
    return 0


def camera_images(size: tuple[int, int]) -> list[np.ndarray]:
    """Read the motorcycle pair, shrunk to (width, height): two images, uint8 [H, W, 3] RGB."""
    from lightglue_ros.export.weights import motorcycle_pair

    return [cv2.resize(read_image(path), size, interpolation=cv2.INTER_AREA) for path in motorcycle_pair()]


def machine() -> str:
    """Describe the machine in a line: processor, whether it has AMX, cores, versions."""
    file = Path("/proc/cpuinfo")  # on Linux only
    cpuinfo = file.read_text() if file.exists() else ""
    processors = re.findall(r"model name\s*: (.+)", cpuinfo)
    name = processors[0] if processors else platform.machine()
    amx = "with" if "amx_int8" in cpuinfo else "without"
    return (
        f"{name} {amx} AMX, {usable_cores()} cores; Python {platform.python_version()}, "
        f"ONNX Runtime {onnxruntime().__version__}, NumPy {np.__version__}"
    )


def time_stages(pipeline: MatchPipeline, images: Sequence[np.ndarray], frames: int) -> dict[str, float]:
    """Median seconds of each stage of matching a stereo pair."""
    rows = []
    for _ in range(frames):
        before = pipeline.times
        pipeline.match(images, [(0, 1)])
        times = pipeline.times - before
        rows.append((times.canvas, times.extract, times.match, times.unpad, times.refine))
    names = ("canvas", "extractor (ONNX Runtime)", "matcher (ONNX Runtime)", "unpad", "refine")
    return dict(zip(names, np.median(rows, axis=0).tolist(), strict=True))


def _print_medians(title: str, seconds: Mapping[str, float]) -> None:
    rows = [(name, 1e3 * value) for name, value in seconds.items()]
    print(f"\n{tabulate(rows, (title, 'median ms'), tablefmt='github', floatfmt='.2f')}")


@dataclass(frozen=True)
class NodeFigures:
    """Measurements of a running node.

    Attributes:
        rate: messages on `matches` per second.
        latency: median seconds from image stamp to arrival of the matches.
        inference: median seconds per frame inside ONNX Runtime.
        outside: median seconds per frame outside it: decoding, canvas, dropping the padding, publishing.
        dropped: share of the frames that were dropped, because the cameras are faster than the node.
    """

    rate: float
    latency: float
    inference: float
    outside: float
    dropped: float


@dataclass(frozen=True)
class RunningMatcher:
    """A matcher in a process of its own, its listener, and the images that its cameras will show it."""

    listener: Listener
    images: Sequence[str]

    def measure(self, frames: int, rate: float = CAMERA_HZ) -> NodeFigures:
        """Run cameras of a rate in Hz until the node has matched that many frames, after a second or two."""
        from lightglue_ros.nodes.processes import node_process

        listener = self.listener
        start = listener.get_clock().now().to_msg()
        with node_process("player", {"images": list(self.images), "rate": rate}):
            # Matches of the cameras of an earlier measurement may still arrive before the first of these.
            listener.wait_until(lambda: _is_after(listener.messages, start), "matches of these cameras")
            before = listener.wait_for_diagnostics()
            listener.clear()
            listener.wait_for_matches(frames + 1, deadline=START_SECONDS + frames)
            values = listener.wait_for_diagnostics()
        matched, dropped = (int(values[it]) - int(before[it]) for it in ("frames matched", "frames dropped"))
        arrivals = listener.arrivals[: frames + 1]
        return NodeFigures(
            rate=frames / (arrivals[-1] - arrivals[0]),
            latency=float(np.median(listener.latencies[1 : frames + 1])),
            inference=1e-3 * float(values["inference p50 (ms)"]),
            outside=1e-3 * float(values["outside inference p50 (ms)"]),
            dropped=dropped / max(matched + dropped, 1),
        )


def _is_after(messages: Sequence[Matches], start: Time) -> bool:
    """True if the images of the newest message were taken after the start."""
    stamps = [message.header.stamp for message in messages[-1:]]
    return any((stamp.sec, stamp.nanosec) > (start.sec, start.nanosec) for stamp in stamps)


@contextmanager
def running_matcher(parameters: Mapping[str, Any], images: Sequence[np.ndarray]) -> Iterator[RunningMatcher]:
    """Run a matcher, isolated from other ROS systems; `images` are uint8 [H, W, 3] RGB of its two cameras."""
    from lightglue_ros.nodes.listener import running_nodes

    with TemporaryDirectory() as folder, running_nodes(matcher=parameters) as listener:
        paths = [f"{folder}/{slot}.png" for slot in range(len(images))]
        for path, image in zip(paths, images, strict=True):
            write_image(path, image)
        yield RunningMatcher(listener, paths)
