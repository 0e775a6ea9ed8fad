"""Rate of the matcher next to a subscriber that never reads.

    . tools/env.sh
    python bench/sleeping_subscriber.py [--rounds 5]

Three windows take turns: without the subscriber, with a subscriber that does not spin, and with its process
stopped, so that its middleware does not answer either. Other work on the machine slows some windows down, so
the best window of each kind counts.
"""

import argparse
import signal
import subprocess
import sys

from lightglue_ros.cli.bench import camera_images, machine, running_matcher
from lightglue_ros.nodes.listener import Listener

SLEEPER = """
import rclpy, signal
from lightglue_ros.msg import Matches
from lightglue_ros.nodes import qos
rclpy.init()
node = rclpy.create_node("sleeper")
subscription = node.create_subscription(Matches, "matches", print, qos.result_qos())
signal.pause()
"""
FRAMES = 100


def main() -> None:
    """Measure and print the rates in Hz."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    parameters = {"image_width": 320, "image_height": 224, "max_keypoints": 64}
    rates: dict[str, list[float]] = {"without": [], "does not spin": [], "is stopped": []}
    print(machine())
    with running_matcher(parameters, camera_images((320, 224))) as matcher:
        for _ in range(rounds):
            rates["without"].append(matcher.measure(FRAMES).rate)
            sleeper = subprocess.Popen([sys.executable, "-c", SLEEPER])
            try:
                wait_for_subscribers(matcher.listener, 2)
                rates["does not spin"].append(matcher.measure(FRAMES).rate)
                sleeper.send_signal(signal.SIGSTOP)
                rates["is stopped"].append(matcher.measure(FRAMES).rate)
            finally:
                sleeper.kill()
                sleeper.wait()
            wait_for_subscribers(matcher.listener, 1)
    print("\n| subscriber that never reads | Hz, best window | share |\n| --- | ---: | ---: |")
    for name, found in rates.items():
        print(f"| {name} | {max(found):.1f} | {max(found) / max(rates['without']):.2f} |")


def wait_for_subscribers(listener: Listener, count: int) -> None:
    """Wait until `count` subscribers listen to `matches`, the listener included."""
    listener.wait_until(
        lambda: listener.count_subscribers("matches") == count, f"{count} subscribers on matches"
    )


if __name__ == "__main__":
    main()
