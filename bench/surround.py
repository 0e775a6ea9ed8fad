"""Compares a surround rig in one matcher with four stereo matchers: same matches, less processor time.

    . tools/env.sh
    python bench/surround.py FRONT LEFT REAR RIGHT      (or no images: views cut out of the motorcycle pair)

Four cameras, each matched with its neighbour. The rig extracts each image once (4 e + 4 m), four stereo
matchers extract each twice (4 (2 e + m)), with e the processor time of an extraction and m that of a match,
which are measured here, too. The two take turns in one run. Then the rate of eight cameras and eight pairs.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from lightglue_ros.cli.bench import camera_images, machine
from lightglue_ros.core import MatchPipeline, PairMatches
from lightglue_ros.core.image_files import read_image

# Of the processor time that is saved in theory, the share that is asked for.
LEAST_SHARE = 0.9


def main() -> int:
    """Measure, print, and judge: the exit status is 0 if the rig saves what it should."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="*", type=Path, help="four images (views of the motorcycle pair)")
    parser.add_argument("--model", default="xfeat")
    parser.add_argument("--image-size", type=int, nargs=2, default=(640, 480))
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    if len(arguments.images) not in (0, 4):
        parser.error("four images, or none")

    width, height = arguments.image_size
    pipeline = MatchPipeline(arguments.model, "cpu", (width, height))
    images = [read_image(path) for path in arguments.images] or motorcycle_views((width, height))
    ring = [(slot, (slot + 1) % 4) for slot in range(4)]
    print(f"{machine()}, threads spin for 5 µs at most")
    print(f"{pipeline.info.model}, {width}x{height}, medians of {arguments.rounds} rounds")

    is_same = all(
        same(found, pipeline.match([images[first], images[second]], [(0, 1)])[0])
        for (first, second), found in zip(ring, pipeline.match(images, ring), strict=True)
    )
    features = pipeline.extract(images[:2])
    works: dict[str, Callable[[], object]] = {
        "surround, one matcher": lambda: pipeline.match(images, ring),
        "four stereo matchers": lambda: [
            pipeline.match([images[first], images[second]], [(0, 1)]) for first, second in ring
        ],
        "extraction of an image (e)": lambda: pipeline.extract(images[:1]),
        "match of a pair (m)": lambda: pipeline.match_features(features, [(0, 1)]),
    }
    rows = [[processor_seconds(work) for work in works.values()] for _ in range(arguments.rounds)]
    spent = dict(zip(works, np.median(rows, axis=0), strict=True))
    print("\n| processor time | ms |\n| --- | ---: |")
    for name, seconds in spent.items():
        print(f"| {name} | {1e3 * seconds:.1f} |")
    one, four, e, m = spent.values()
    expected = LEAST_SHARE * (2 * e + m) / (e + m)
    print(f"\nmatches: {'the same' if is_same else 'NOT the same'}")
    print(f"ratio: {four / one:.2f}; {LEAST_SHARE:g} x (2 e + m) / (e + m) = {expected:.2f} is asked for")
    print(f"eight cameras of 320x240, eight pairs: {rate_of_eight(arguments.model, images):.1f} Hz")
    return 0 if is_same and four / one >= expected else 1


def motorcycle_views(size: tuple[int, int]) -> list[np.ndarray]:
    """Four overlapping views: the pair, and it again turned by 180 degrees."""
    left, right = camera_images(size)
    return [left, right, np.ascontiguousarray(left[::-1, ::-1]), np.ascontiguousarray(right[::-1, ::-1])]


def processor_seconds(work: Callable[[], object]) -> float:
    """Return the seconds that all cores spend on a call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def same(found: PairMatches, expected: PairMatches) -> bool:
    """True if two results have the same matches, with scores within 1e-4."""
    return (
        np.array_equal(found.indices0, expected.indices0)
        and np.array_equal(found.indices1, expected.indices1)
        and np.allclose(found.scores, expected.scores, atol=1e-4)
    )


def rate_of_eight(model: str, images: Sequence[np.ndarray], frames: int = 10) -> float:
    """Frames per second of eight cameras in a ring."""
    pipeline = MatchPipeline(model, "cpu", (320, 240))
    ring = [(slot, (slot + 1) % 8) for slot in range(8)]
    seconds = []
    for _ in range(frames):
        start = time.perf_counter()
        pipeline.match([*images, *images], ring)
        seconds.append(time.perf_counter() - start)
    return 1.0 / float(np.median(seconds))


if __name__ == "__main__":
    raise SystemExit(main())
