"""A reader of the documents: the files and the shell in which their lines are run as printed."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np

from lightglue_ros.core.image_files import write_image
from lightglue_ros.rosdata.bags import BagWriter, typestore

ROOT = Path(__file__).parents[1]
FRAMES, BEGIN, PERIOD = 3, 1_600_000_000_000_000_000, 100_000_000
# Topics of the bags that the documents name, first left, then right.
BAGS = {
    "drive": ["/left/image_rect", "/right/image_rect", "/left/image/compressed", "/right/image/compressed"],
    "monday": ["/cam0/image_raw", "/cam1/image_raw"],
    "tuesday": ["/cam0/image_raw", "/cam1/image_raw"],
}
# What the lines need of `ros2`, which is not among ROS 2's wheels.
ROS2 = f"""#!{sys.executable}
import os, sys
from ament_index_python.packages import get_package_prefix, get_package_share_directory

match sys.argv[1:]:
    case ["run", package, executable, *arguments]:
        path = f"{{get_package_prefix(package)}}/lib/{{package}}/{{executable}}"
        os.execv(path, [path, *arguments])
    case ["pkg", "prefix", package]:
        print(get_package_prefix(package))
    case ["pkg", "prefix", "--share", package]:
        print(get_package_share_directory(package))
    case words:
        sys.exit(f"this ros2 does not know {{words}}")
"""
DEADLINE = 240.0
HEAR_SECONDS = 60.0
END_SECONDS = 20.0


@contextmanager
def shell(line: str, folder: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen]:
    """Run a line in a shell of its own; what still runs at the end gets Ctrl-C, as from a terminal."""
    command = ["bash", "-c", line]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **options)
    try:
        yield process
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(END_SECONDS)
    finally:
        # Whatever it began is gone after the test, even where that failed.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def hear(process: subprocess.Popen, text: str) -> None:
    """Wait until a line that goes on says something."""
    said, end = "", time.monotonic() + HEAR_SECONDS
    while text not in said:
        left = max(end - time.monotonic(), 0)
        assert select.select([process.stdout], [], [], left)[0], f"waited in vain for {text}: {said}"
        more = os.read(process.stdout.fileno(), 2**16).decode(errors="replace")
        assert more, f"it ended without {text}: {said}"
        said += more


def run(line: str, folder: Path, environment: Mapping[str, str]) -> str:
    """Run a line to its end and return what it said; its status is 0."""
    with shell(line, folder, environment) as process:
        said, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, f"{line}\n{said}"
    assert "Traceback" not in said, f"{line}\n{said}"
    return said


def write_ros2(path: Path) -> None:
    """Write a program that does what the lines need of `ros2`."""
    path.write_text(ROS2)
    path.chmod(0o755)


def write_readers_files(folder: Path, images: tuple[np.ndarray, np.ndarray]) -> Path:
    """Write them: uint8 [H, W, 3] RGB of a left and a right camera."""
    for name, image in zip(("left.png", "right.png"), images, strict=True):
        write_image(folder / name, image)
    (folder / "config").symlink_to(ROOT / "config")
    (folder / "mine.yaml").symlink_to(ROOT / "config" / "matcher.yaml")
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images]
    for name, topics in BAGS.items():
        write_bag(folder / name, topics, grey)
    (folder / "FOLDER").symlink_to(folder / "drive")
    return folder


def write_bag(folder: Path, topics: list[str], images: list[np.ndarray]) -> None:
    """Record a few frames of grey images, in turn on these topics."""
    store = typestore()
    header, moment = store.types["std_msgs/msg/Header"], store.types["builtin_interfaces/msg/Time"]
    raw, jpeg = store.types["sensor_msgs/msg/Image"], store.types["sensor_msgs/msg/CompressedImage"]
    kinds = {topic: jpeg if topic.endswith("/compressed") else raw for topic in topics}
    with BagWriter(folder, "mcap") as writer:
        added = {topic: writer.add_topic(topic, kind.__msgtype__) for topic, kind in kinds.items()}
        for frame in range(FRAMES):
            stamp = BEGIN + frame * PERIOD
            of = header(moment(stamp // 10**9, stamp % 10**9), "camera")
            for number, (topic, kind) in enumerate(kinds.items()):
                image = np.ascontiguousarray(images[number % 2][4 * frame :])
                if kind is jpeg:
                    message = jpeg(of, "jpeg", cv2.imencode(".jpg", image)[1].ravel())
                else:
                    message = raw(of, *image.shape, "mono8", 0, image.shape[1], image.ravel())
                writer.write(added[topic], stamp, store.serialize_cdr(message, kind.__msgtype__))
