"""Measures the node next to other processes that want the same cores, with different settings.

    . tools/env.sh
    lightglue_ros export xfeat --split --max-keypoints 512
    python bench/shared_cores.py xfeat-k512

Neighbours: nobody; a process that is always busy, with the node's priority and with the lowest priority
(nice 19); and a second matcher with cameras of its own. Each matcher gets stereo images at 30 Hz from a
player, which takes its share of the same cores. The neighbours and the settings (`spin_threads`, `overlap`)
take turns in each round. Ratios compare a node with the same node alone, and with one of default settings,
in the same round.

With a second matcher, the rate is that of one matcher (the mean of the two); the sum is twice as high.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from tempfile import TemporaryDirectory

import numpy as np
import rclpy

from lightglue_ros.cli.bench import CAMERA_HZ, camera_images
from lightglue_ros.core.image_files import write_image
from lightglue_ros.nodes.listener import Listener
from lightglue_ros.nodes.processes import isolate, node_process
from tables import Table, keep, parser_of, print_head, print_table

COLUMNS = ("neighbour", "settings", "Hz", "of its rate alone", "least to most", "of default settings")
DEFAULT = "default"
SETTINGS = (DEFAULT, "spin_threads", "overlap")
# More than two frames of a slow node, so that the listeners' queues do not overflow.
LISTEN_SECONDS = 0.05
# A matcher finishes its last frame within this time.
DRAIN_SECONDS = 0.5


@contextmanager
def busy_process(niceness: int) -> Iterator[None]:
    """Run a process that never waits."""
    process = subprocess.Popen(["nice", "-n", str(niceness), sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def rates(listeners: Sequence[Listener], images: Sequence[str], seconds: float) -> list[float]:
    """Run the cameras of some matchers, and return the messages per second of each matcher."""
    # Else the last messages of an earlier turn would pass for the first of this one.
    for listener in listeners:
        listener.listen(DRAIN_SECONDS)
    with ExitStack() as stack:
        for listener in listeners:
            parameters = {"images": list(images), "rate": CAMERA_HZ}
            stack.enter_context(node_process("player", parameters, namespace=listener.get_namespace()))
        for listener in listeners:
            listener.clear()
            listener.wait_for_matches(3)
        for listener in listeners:
            listener.clear()
        start = time.monotonic()
        while (spent := time.monotonic() - start) < seconds:
            for listener in listeners:
                listener.listen(LISTEN_SECONDS)
    return [len(listener.arrivals) / spent for listener in listeners]


def main() -> None:
    """Measure and print a table."""
    parser = parser_of(__doc__)
    parser.set_defaults(rounds=3)
    parser.add_argument("model", nargs="?", default="xfeat-k512")
    parser.add_argument("--image-size", type=int, nargs=2, default=(640, 480))
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    arguments = parser.parse_args()

    width, height = arguments.image_size
    print_head("The node next to others")
    isolate()
    rclpy.init()
    neighbours = {
        "nobody": None,
        "a busy process": 0,
        "a busy process, nice 19": 19,
        "a second matcher": None,
    }
    found: dict[tuple[str, str], list[float]] = {(it, name): [] for it in neighbours for name in SETTINGS}
    with TemporaryDirectory() as folder, ExitStack() as stack:
        stack.callback(rclpy.try_shutdown)
        images = [f"{folder}/{side}.png" for side in ("left", "right")]
        for path, image in zip(images, camera_images((width, height)), strict=True):
            write_image(path, image)
        matchers: dict[str, list[Listener]] = {}
        for name in SETTINGS:
            matchers[name] = []
            for number in range(2):
                parameters = {"model": arguments.model, "image_width": width, "image_height": height}
                parameters |= {"provider": "cpu"} | ({} if name == DEFAULT else {name: True})
                namespace = f"/{name}{number}"
                process = stack.enter_context(node_process("matcher", parameters, namespace=namespace))
                matchers[name].append(Listener(process, namespace=namespace))
                stack.callback(matchers[name][-1].destroy_node)
        for turn in range(arguments.rounds):
            for neighbour, niceness in neighbours.items():
                for name in SETTINGS if turn % 2 == 0 else reversed(SETTINGS):
                    listeners = matchers[name] if neighbour == "a second matcher" else matchers[name][:1]
                    with ExitStack() as busy:
                        if niceness is not None:
                            busy.enter_context(busy_process(niceness))
                        rate = float(np.mean(rates(listeners, images, arguments.seconds)))
                    found[neighbour, name].append(rate)
                    print(f"{neighbour}, {name}: {rate:.1f} Hz", file=sys.stderr)

    rows = []
    for (neighbour, name), hertz in found.items():
        ratios = np.divide(hertz, found["nobody", name])
        of_default = np.divide(hertz, found[neighbour, DEFAULT])
        extremes = f"{ratios.min():.2f} to {ratios.max():.2f}"
        middle = [float(np.median(it)) for it in (hertz, ratios, of_default)]
        rows.append((neighbour, name, *middle[:2], extremes, middle[2]))
    title = f"{arguments.model}, stereo {width} x {height}: medians of {arguments.rounds} rounds"
    table = Table(title, COLUMNS, rows, x="neighbour", y="Hz", series="settings")
    print_table(table)
    keep([table], arguments)


if __name__ == "__main__":
    main()
