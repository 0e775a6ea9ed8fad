"""Counts the stereo frames that are matched with drivers in the default settings of ROS 2.

    . tools/env.sh
    python bench/default_driver.py [--rounds 3]

A driver in default settings publishes reliably with a depth of 5, and has no profile of Fast DDS. Each camera
has a driver process of its own, as on most robots, or one process drives both cameras. The matcher has its
default parameters. It sets our profile for itself, as it always does.

`frames` counts those that were assembled, `dropped` those of them that were overtaken because inference was
slower than the cameras. Both are from `/diagnostics`. With a small `--image-size` a busy machine drops few.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass

import cv2
import rclpy
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from lightglue_ros.cli.bench import camera_images
from lightglue_ros.msg import PairMatches
from lightglue_ros.nodes.conversions import array_to_image
from lightglue_ros.nodes.fastdds import OLD_PROFILE_VARIABLE, PROFILE_VARIABLE
from lightglue_ros.nodes.listener import Listener
from lightglue_ros.nodes.processes import isolate, node_process
from tables import Table, keep, parser_of, print_head, print_table

FRAMES = 60
QOS = {"reliable": QoSProfile(depth=5), "best_effort": qos_profile_sensor_data}
# Time for the drivers to start and to find the matcher.
START_SECONDS = 6.0
# An image that was lost is sent again at the writer's next heartbeat, after 3 s at most.
END_SECONDS = 5.0


@dataclass(frozen=True)
class Stream:
    """Images of a stereo camera.

    Attributes:
        size: (width, height) in pixels.
        encoding: bgr8 or mono8.
        hertz: images per second of each camera.
        left, right: names of their QoS.
        processes: number of driver processes, 1 or 2.
    """

    size: tuple[int, int]
    encoding: str
    hertz: float
    left: str
    right: str
    processes: int = 2

    @property
    def title(self) -> str:
        """Description in a line."""
        width, height = self.size
        drivers = "one driver for both" if self.processes == 1 else "a driver each"
        qos = f"{self.left} and {self.right}"
        return f"{width} x {height} {self.encoding}, {self.hertz:g} Hz, {qos}, {drivers}"


STREAMS = [
    Stream((1252, 1110), "bgr8", 5.0, "reliable", "reliable"),
    Stream((1252, 1110), "bgr8", 5.0, "reliable", "reliable", processes=1),
    Stream((640, 480), "mono8", 10.0, "reliable", "reliable"),
    Stream((320, 240), "mono8", 10.0, "best_effort", "best_effort"),
    Stream((320, 240), "mono8", 10.0, "reliable", "best_effort"),
]


def drive(stream: Stream, cameras: list[int], start: float) -> None:
    """Be the driver of some cameras (0 is left, 1 is right): publish the frames from a moment on."""
    images = [camera_images(stream.size)[camera] for camera in cameras]
    if stream.encoding == "mono8":
        images = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images]
    messages = [array_to_image(image, Header(frame_id="camera")) for image in images]
    for message in messages:
        message.encoding = stream.encoding
    rclpy.init()
    node = rclpy.create_node("driver")
    topics = [("left/image_rect", stream.left), ("right/image_rect", stream.right)]
    chosen = [topics[camera] for camera in cameras]
    publishers = [node.create_publisher(Image, topic, QOS[kind]) for topic, kind in chosen]
    for number in range(FRAMES):
        while (left := start + number / stream.hertz - time.time()) > 0.0:
            rclpy.spin_once(node, timeout_sec=left)
        stamp = node.get_clock().now().to_msg()
        for publisher, message in zip(publishers, messages, strict=True):
            message.header.stamp = stamp
            publisher.publish(message)
    end = time.monotonic() + END_SECONDS
    while (left := end - time.monotonic()) > 0.0:
        rclpy.spin_once(node, timeout_sec=left)


def measure(number: int, parameters: dict[str, int]) -> tuple[int, int, int]:
    """Run matcher and drivers; return the numbers of matched, assembled and dropped frames."""
    bare = {key: value for key, value in os.environ.items() if key not in _VARIABLES}
    with node_process("matcher", parameters, env=bare) as matcher:
        listener = Listener(matcher)
        try:
            topics = [f"{name}/image_rect" for name in ("left", "right")]
            listener.wait_until(lambda: all(map(listener.count_subscribers, topics)), "subscriptions")
            start = str(time.time() + START_SECONDS)
            command = [sys.executable, __file__, "--driver", str(number), "--start", start, "--cameras"]
            groups = (["0"], ["1"]) if STREAMS[number].processes == 2 else (["0", "1"],)
            drivers = [subprocess.Popen([*command, *group], env=bare) for group in groups]
            while any(driver.poll() is None for driver in drivers):
                listener.listen(0.5)
            found = listener.wait_for_diagnostics()
            matched = [it for it in listener.messages if it.pairs[0].status == PairMatches.STATUS_OK]
            return len(matched), int(found["frames"]), int(found["frames dropped"])
        finally:
            listener.destroy_node()


_VARIABLES = (PROFILE_VARIABLE, OLD_PROFILE_VARIABLE)


def main() -> int:
    """Measure and print, or be the driver."""
    parser = parser_of(__doc__)
    parser.set_defaults(rounds=3)
    parser.add_argument(
        "--image-size", type=int, nargs=2, metavar=("WIDTH", "HEIGHT"), help="the matcher's canvas"
    )
    for name, kind, count in (("--driver", int, None), ("--cameras", int, "+"), ("--start", float, None)):
        parser.add_argument(name, type=kind, nargs=count, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.driver is not None:
        drive(STREAMS[arguments.driver], arguments.cameras, arguments.start)
        return 0
    print_head("Matched stereo frames with drivers in default settings")
    isolate()
    rclpy.init()
    rows = []
    size = arguments.image_size
    parameters = {"image_width": size[0], "image_height": size[1]} if size else {}
    for number, stream in enumerate(STREAMS):
        found = zip(*(measure(number, parameters) for _ in range(arguments.rounds)), strict=True)
        rows.append((stream.title, *(", ".join(map(str, counts)) for counts in found)))
        print(f"{rows[-1]}", file=sys.stderr, flush=True)
    rclpy.try_shutdown()
    columns = ("cameras", "matched", "frames", "dropped")
    table = Table(f"Of {FRAMES} frames, in each round", columns, rows, x="cameras", y="matched")
    print_table(table)
    keep([table], arguments)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
