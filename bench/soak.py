"""Runs the matcher for ten minutes at full rate and looks for growth of memory, threads and open files.

    . tools/env.sh
    python bench/soak.py [--minutes 10] [--params-file config/stereo_with_time.yaml]

Two cameras at 30 Hz from another process, more than a small machine can match. Prints a line every ten
seconds, and what has grown since the first minute.

In the first minute the matcher is stopped now and then, so that its queues are full once. What they take then
is not given back: Fast DDS keeps the memory of images that have waited, up to the depth of the subscription,
and of the cameras' shared memory each page counts as the matcher's that ever held an image for it, up to the
32 MiB of config/fastdds.xml. Without this a busy machine, on which an image waits longer now and then, comes
to the same bound in small steps over many minutes, and nobody could tell that from a leak.
"""

import argparse
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import rclpy

from lightglue_ros.cli.bench import CAMERA_HZ, camera_images, machine
from lightglue_ros.core.image_files import write_image
from lightglue_ros.nodes.listener import Listener
from lightglue_ros.nodes.processes import isolate, node_process

WARM_UP_SECONDS = 60.0
SAMPLE_SECONDS = 10.0
# Less than the second after which Fast DDS takes a reader of shared memory for dead.
PAUSE_SECONDS = 0.9
MOST_GROWTH = 0.02


@dataclass(frozen=True)
class Sample:
    """Memory, threads and open files of a process.

    Attributes:
        at: seconds since the start.
        memory: resident, in MiB.
        shared: how much of that is shared memory, the cameras' for the most part.
        threads: how many.
        files: open file descriptors.
    """

    at: float
    memory: float
    shared: float
    threads: int
    files: int

    @classmethod
    def of(cls, pid: int, start: float) -> "Sample":
        """Look at a process (proc(5))."""
        process = Path("/proc") / str(pid)
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        memory, shared = (int(status[name].split()[0]) / 1024 for name in ("VmRSS", "RssShmem"))
        files = len(list((process / "fd").iterdir()))
        return cls(time.monotonic() - start, memory, shared, int(status["Threads"]), files)


def main() -> int:
    """Run, print and judge; the exit status is 0 if nothing has grown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument(
        "--params-file", type=Path, help="parameters of a rig with the cameras left and right"
    )
    parser.add_argument("--image-size", type=int, nargs=2, default=(640, 480))
    arguments = parser.parse_args()

    print(machine())
    isolate()
    rclpy.init()
    with (
        TemporaryDirectory() as folder,
        node_process("matcher", {}, arguments.params_file) as matcher,
        node_process("player", {"images": camera_files(folder, arguments.image_size), "rate": CAMERA_HZ}),
    ):
        listener = Listener(matcher)
        listener.wait_for_matches(1)
        samples = watch(listener, matcher, 60.0 * arguments.minutes)
        diagnostics = listener.wait_for_diagnostics()
        listener.destroy_node()
    rclpy.try_shutdown()
    for name in ("frames dropped", "age beyond inference p99 (ms)", "outside inference p50 (ms)"):
        print(f"{name}: {diagnostics[name]}")
    return judge(samples)


def camera_files(folder: str, size: tuple[int, int]) -> list[str]:
    """Write the motorcycle pair in that (width, height)."""
    paths = [f"{folder}/{side}.png" for side in ("left", "right")]
    for path, image in zip(paths, camera_images(tuple(size)), strict=True):
        write_image(path, image)
    return paths


def watch(listener: Listener, matcher: subprocess.Popen, seconds: float) -> list[Sample]:
    """Take samples of a matcher for some seconds; stop it now and then in the first minute."""
    start = time.monotonic()
    samples: list[Sample] = []
    while time.monotonic() - start < seconds:
        if samples and samples[-1].at + 2 * SAMPLE_SECONDS < WARM_UP_SECONDS:
            matcher.send_signal(signal.SIGSTOP)
            time.sleep(PAUSE_SECONDS)
            matcher.send_signal(signal.SIGCONT)
        listener.clear()
        listener.listen(SAMPLE_SECONDS)
        samples.append(Sample.of(matcher.pid, start))
        sample, rate = samples[-1], len(listener.messages) / SAMPLE_SECONDS
        latency = 1e3 * float(np.median(listener.latencies or [0.0]))
        print(
            f"{sample.at:5.0f} s  {rate:5.1f} Hz  latency {latency:4.0f} ms  {sample.memory:6.1f} MiB "
            f"({sample.shared:.1f} shared)  {sample.threads} threads  {sample.files} files",
            flush=True,
        )
    return samples


def judge(samples: list[Sample]) -> int:
    """Compare the end with the end of the first minute."""
    warm = [sample for sample in samples if sample.at >= WARM_UP_SECONDS]
    if len(warm) < 2:
        print("too short to judge: more than a minute is needed")
        return 1
    first, last = warm[0], warm[-1]
    growth = last.memory / first.memory - 1.0
    print(
        f"since the first minute: memory {100 * growth:+.2f}% (at most {100 * MOST_GROWTH:g}%), "
        f"threads {last.threads - first.threads:+d}, files {last.files - first.files:+d}"
    )
    return 0 if growth < MOST_GROWTH and last.threads <= first.threads and last.files <= first.files else 1


if __name__ == "__main__":
    raise SystemExit(main())
