"""Measures the processor time that the node takes outside of ONNX Runtime, by stage.

    . tools/env.sh
    lightglue_ros export xfeat --split --max-keypoints 512
    python bench/node_cost.py xfeat-k512

Four cameras of 1920 x 1080 at 15 Hz, each a driver process of its own, and the matcher, which matches each
camera with its neighbour. Processor time is that of the matcher's process, of the user and of the system.

Stages that come with each image are divided by the images that arrived, stages that come with a frame by the
images of the frames that were matched. Their sum is what an image costs that arrives and is matched.

The floor is a plain rclpy node that receives the same images and does nothing. image_proc's resize node,
which a user might put before a matcher, is not installed here: for it stands cv2.resize with its default
interpolation (INTER_LINEAR), to the size that the image has on the canvas. That node receives each image as
well, and publishes a smaller one, which the matcher must receive.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from lightglue_ros.cli.bench import camera_images
from lightglue_ros.core.canvas import fitted_size
from lightglue_ros.nodes.conversions import array_to_image
from lightglue_ros.nodes.listener import Listener
from lightglue_ros.nodes.processes import isolate
from tables import Table, keep, parser_of, print_head, print_table

CAMERAS = ("front", "left", "rear", "right")
SIZE = (1920, 1080)
DRIVER_QOS = QoSProfile(depth=5)
SETTLE_SECONDS = 3.0
DEADLINE = 60.0
# Stages of the inference thread; all others come with each image.
OF_FRAMES = (
    "decode",
    "resize onto the canvas",
    "grey images for the refinement",
    "refinement",
    "rest of a frame",
)


class Stages:
    """Processor time of functions of this process, each without that of the watched functions that it calls.

    The clock itself takes time, which is subtracted: 0.07 ms in some virtual machines.

    Attributes:
        overhead: seconds that the clock has taken.
        seconds: of each stage.
        calls: number of calls of each stage.
    """

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.overhead = 0.0
        self._thread = threading.local()
        start = time.thread_time()
        for _ in range(1000):
            time.thread_time()
        self._tick = (time.thread_time() - start) / 1000

    def watch(self, owner: Any, name: str, stage: str) -> None:
        """Replace a function of a module or class by itself with a clock."""
        function: Callable[..., Any] = getattr(owner, name)

        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            outside, self._thread.inner = getattr(self._thread, "inner", 0.0), 0.0
            start = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.thread_time() - start
                self.seconds[stage] += spent - self._tick - self._thread.inner
                self.calls[stage] += 1
                self.overhead += 2 * self._tick
                self._thread.inner = outside + spent + self._tick

        setattr(owner, name, timed)


def thread_seconds() -> dict[int, tuple[str, float]]:
    """Return the name and the processor time of each thread of this process, by its id."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        name = (task / "comm").read_text().strip()
        found[int(task.name)] = name, 1e-9 * int((task / "schedstat").read_text().split()[0])
    return found


def run_matcher(snapshot: Path, arguments: list[str]) -> int:
    """Be the matcher, and write down the time of each stage so far when SIGUSR1 comes."""
    from lightglue_ros.core import refinement, session
    from lightglue_ros.core.canvas import Canvas
    from lightglue_ros.nodes import active_matcher, matcher
    from lightglue_ros.rig import processor

    stages = Stages()
    stages.watch(SingleThreadedExecutor, "_take_subscription", "take")
    stages.watch(active_matcher.ActiveMatcher, "_take", "check and assemble")
    stages.watch(active_matcher.ActiveMatcher, "_match", "rest of a frame")
    stages.watch(processor, "_decode", "decode")
    stages.watch(Canvas, "place", "resize onto the canvas")
    stages.watch(refinement.Refiner, "prepare", "grey images for the refinement")
    stages.watch(refinement.Refiner, "refine", "refinement")
    stages.watch(session.GraphSession, "run", "ONNX Runtime")
    # OpenCV begins its threads at its first large image, ONNX Runtime its own with a session.
    before = set(thread_seconds())
    cv2.resize(np.zeros((2000, 2000, 3), np.uint8), (999, 999), interpolation=cv2.INTER_AREA)
    groups = dict.fromkeys(set(thread_seconds()) - before, "OpenCV")
    make = session.GraphSession.__init__

    def make_and_look(*args: Any, **kwargs: Any) -> None:
        before = set(thread_seconds())
        make(*args, **kwargs)
        groups.update(dict.fromkeys(set(thread_seconds()) - before, "ONNX Runtime"))

    session.GraphSession.__init__ = make_and_look

    def write(*_: Any) -> None:
        threads = {thread.native_id: thread.name for thread in threading.enumerate()}
        of_groups: Counter[str] = Counter()
        for tid, (name, seconds) in thread_seconds().items():
            group = groups.get(tid) or threads.get(tid) or name
            of_groups[group.split(".")[0] if group.startswith("dds.") else group] += seconds
        of_groups["clock"] = -stages.overhead
        text = json.dumps({"threads": of_groups, "stages": stages.seconds, "calls": stages.calls})
        snapshot.with_suffix(".part").write_text(text)
        snapshot.with_suffix(".part").rename(snapshot)

    signal.signal(signal.SIGUSR1, write)
    return matcher.main(arguments)


def run_floor(snapshot: Path) -> None:
    """Be a node that only receives."""
    rclpy.init()
    node = rclpy.create_node("floor")
    received = Counter[str]()
    for camera in CAMERAS:
        node.create_subscription(Image, topic_of(camera), lambda _: received.update(["take"]), DRIVER_QOS)

    def write(*_: Any) -> None:
        seconds = sum(seconds for _, seconds in thread_seconds().values())
        text = json.dumps({"threads": {"all": seconds}, "stages": {}, "calls": received})
        snapshot.with_suffix(".part").write_text(text)
        snapshot.with_suffix(".part").rename(snapshot)

    signal.signal(signal.SIGUSR1, write)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    with suppress(ExternalShutdownException, KeyboardInterrupt):
        while True:
            executor.spin_once(timeout_sec=0.1)


def run_driver(camera: str, encoding: str, hertz: float, start: float) -> None:
    """Be the driver of a camera, until the process is ended."""
    image = camera_images(SIZE)[CAMERAS.index(camera) % 2]
    if encoding == "mono8":
        image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    message = array_to_image(image, Header(frame_id=camera))
    message.encoding = encoding
    rclpy.init()
    node = rclpy.create_node(f"driver_{camera}")
    publisher = node.create_publisher(Image, topic_of(camera), DRIVER_QOS)
    number = 0
    with suppress(ExternalShutdownException, KeyboardInterrupt):
        while True:
            number += 1
            while (left := start + number / hertz - time.time()) > 0.0:
                rclpy.spin_once(node, timeout_sec=left)
            # The same stamp for all cameras, as with a trigger.
            seconds = start + number / hertz
            message.header.stamp.sec = int(seconds)
            message.header.stamp.nanosec = int(seconds % 1 * 1e9)
            if not rclpy.ok():
                break
            publisher.publish(message)


def topic_of(camera: str) -> str:
    """Return the topic of a camera's images."""
    return f"{camera}/image_rect"


@contextmanager
def ours(*arguments: str) -> Iterator[subprocess.Popen]:
    """Run this file in a process of its own, and end it."""
    process = subprocess.Popen([sys.executable, __file__, *arguments])
    try:
        yield process
    finally:
        # A process that is killed leaves its shared memory behind, 33.5 MiB.
        process.send_signal(signal.SIGINT)
        process.wait(DEADLINE)


def look(process: subprocess.Popen, snapshot: Path) -> dict[str, Counter[str]]:
    """Ask a process for its times."""
    snapshot.unlink(missing_ok=True)
    process.send_signal(signal.SIGUSR1)
    end = time.monotonic() + DEADLINE
    while not snapshot.exists():
        if process.poll() is not None or time.monotonic() > end:
            sys.exit("the measured process ended or does not answer")
        time.sleep(0.02)
    return {name: Counter(values) for name, values in json.loads(snapshot.read_text()).items()}


def measure(
    process: subprocess.Popen, arguments: argparse.Namespace, seconds: float, folder: Path
) -> dict[str, Counter[str]]:
    """Run the drivers, and return the times and calls of a process while they ran."""
    snapshot = folder / "snapshot"
    start = str(time.time() + SETTLE_SECONDS)
    with ExitStack() as stack:
        for camera in CAMERAS:
            stream = ["--encoding", arguments.encoding, "--hertz", str(arguments.hertz)]
            stack.enter_context(ours("--driver", camera, "--start", start, *stream))
        time.sleep(2 * SETTLE_SECONDS)
        before = look(process, snapshot)
        time.sleep(seconds)
        after = look(process, snapshot)
    return {name: Counter({it: after[name][it] - before[name][it] for it in after[name]}) for name in after}


def cost(found: Mapping[str, Counter[str]]) -> dict[str, tuple[float, str]]:
    """Return the processor time of each stage in ms, and for which images."""
    threads, stages, calls = (found[name] for name in ("threads", "stages", "calls"))
    received, matched = calls["take"], len(CAMERAS) * calls["rest of a frame"]
    # Threads with an image or a pair of their own run ONNX Runtime and nothing else.
    of_rows = sum(seconds for name, seconds in threads.items() if name.startswith("rows"))
    onnx = stages["ONNX Runtime"] + threads["ONNX Runtime"] + of_rows
    rest = sum(threads.values()) - onnx - threads["dds"] - threads["OpenCV"]
    rest -= sum(stages[name] for name in ("take", "check and assemble", *OF_FRAMES))
    each, of_frame = "an image that arrives", "an image that is matched"
    rows = {
        "receive (threads of Fast DDS)": (threads["dds"] / received, each),
        "take: deserialise, make a Python message (rclpy)": (stages["take"] / received, each),
        "check and assemble": (stages["check and assemble"] / received, each),
        "rest of the process (wait sets, diagnostics)": (rest / received, each),
        **{name: (stages[name] / matched, of_frame) for name in OF_FRAMES},
        "threads of OpenCV": (threads["OpenCV"] / matched, of_frame),
    }
    return {name: (1e3 * seconds, of) for name, (seconds, of) in rows.items()}


def resize_ms(size: tuple[int, int], interpolation: int) -> float:
    """Return the processor time of shrinking an image of a camera, in ms."""
    image = camera_images(SIZE)[0]
    start = time.process_time()
    for _ in range(20):
        cv2.resize(image, size, interpolation=interpolation)
    return 1e3 * (time.process_time() - start) / 20


def main() -> int:
    """Measure and print, or be one of the processes."""
    parser = parser_of(__doc__)
    parser.set_defaults(rounds=3)
    parser.add_argument("model", nargs="?", default="xfeat")
    parser.add_argument("--image-size", type=int, nargs=2, default=(640, 480))
    parser.add_argument("--encoding", default="rgb8", choices=("rgb8", "bgr8", "mono8"), help="of the images")
    parser.add_argument("--hertz", type=float, default=15.0, help="images per second of each camera")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--driver", help=argparse.SUPPRESS)
    parser.add_argument("--start", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--matcher", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parser.add_argument("--floor", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.driver:
        run_driver(arguments.driver, arguments.encoding, arguments.hertz, arguments.start)
        return 0
    if arguments.floor:
        run_floor(arguments.floor)
        return 0
    if arguments.matcher:
        return run_matcher(Path(arguments.matcher[0]), arguments.matcher[1:])
    print_head("The node's own cost")
    isolate()
    rclpy.init()
    rounds = [one_round(arguments) for _ in range(arguments.rounds)]
    rclpy.try_shutdown()
    rows = []
    for name, (_, of) in rounds[0][0].items():
        rows.append((name, of, float(np.median([costs[name][0] for costs, _ in rounds]))))
    total = float(np.median([sum(ms for ms, _ in costs.values()) for costs, _ in rounds]))
    rows.append(("sum", "an image that arrives and is matched", total))
    rates = np.median([rates for _, rates in rounds], axis=0)
    title = (
        f"{arguments.model}, {len(CAMERAS)} cameras of {SIZE[0]} x {SIZE[1]} {arguments.encoding} at "
        f"{arguments.hertz:g} Hz, "
        f"{rates[0]:.1f} images a second arrived, {rates[1]:.1f} were matched; medians of "
        f"{arguments.rounds} rounds"
    )
    table = Table(title, ("stage", "of", "ms"), rows, x="stage", y="ms")
    size = fitted_size(SIZE, tuple(arguments.image_size))
    others = [
        ("a plain rclpy node receives", float(rates[2])),
        (f"cv2.resize to {size[0]} x {size[1]}, INTER_LINEAR", resize_ms(size, cv2.INTER_LINEAR)),
        (f"cv2.resize to {size[0]} x {size[1]}, INTER_AREA", resize_ms(size, cv2.INTER_AREA)),
    ]
    tables = [table, Table("Others, for an image", ("what", "ms"), others, x="what", y="ms")]
    for table in tables:
        print_table(table)
    keep(tables, arguments)
    return 0


def one_round(arguments: argparse.Namespace) -> tuple[dict[str, tuple[float, str]], tuple[float, ...]]:
    """Measure the matcher and the floor."""
    width, height = arguments.image_size
    pairs = [f"{first}:{second}" for first, second in zip(CAMERAS, [*CAMERAS[1:], CAMERAS[0]], strict=True)]
    parameters = {
        "model": arguments.model,
        "image_width": width,
        "image_height": height,
        "cameras": list(CAMERAS),
        "image_topics": [topic_of(camera) for camera in CAMERAS],
        "pairs": pairs,
        "lazy": False,
    }
    command = ["--ros-args"]
    for name, value in parameters.items():
        command += ["-p", f"{name}:={json.dumps(value)}"]
    with TemporaryDirectory() as name:
        folder = Path(name)
        with ours("--matcher", str(folder / "snapshot"), *command) as process:
            listener = Listener(process)
            try:
                topics = [topic_of(camera) for camera in CAMERAS]
                listener.wait_until(lambda: all(map(listener.count_subscribers, topics)), "subscriptions")
            finally:
                listener.destroy_node()
            found = measure(process, arguments, arguments.seconds, folder)
        with ours("--floor", str(folder / "snapshot")) as process:
            floor = measure(process, arguments, arguments.seconds / 2, folder)
    received, matched = found["calls"]["take"], len(CAMERAS) * found["calls"]["rest of a frame"]
    rates = (received / arguments.seconds, matched / arguments.seconds)
    return cost(found), (*rates, 1e3 * floor["threads"]["all"] / floor["calls"]["take"])


if __name__ == "__main__":
    raise SystemExit(main())
