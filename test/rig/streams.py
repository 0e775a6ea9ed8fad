"""Streams of images for a frame assembler, which hands images on as they are: here they are numbers."""

from itertools import pairwise

from lightglue_ros.rig.frame_assembler import FrameAssembler
from lightglue_ros.rig.rig import Rig

MS = 1_000_000
SECOND = 1000 * MS
PERIOD = 100 * MS
START = 1_700_000_000_000 * MS
HOUR_IN_MS = 3_600_000


def assembler(cameras=2, slop=0.01, timeout=1.0, pairs=(), absent=()):
    """An assembler of cameras 0, 1, ..., of which each makes a pair with the next unless pairs are given."""
    names = [str(number) for number in range(cameras)]
    chain = [f"{first}:{second}" for first, second in pairwise(names)] or ["0@-1:0"]
    return FrameAssembler(Rig.parse(names, pairs or chain), slop, timeout, absent)


def feed(frames, images):
    """Add (arrival in ms, camera, image, stamp in ms or else that of the arrival); returns the frames."""
    found = []
    for at, camera, image, *taken in images:
        stamp, now = (START + round(time * MS) for time in ((taken or [at])[0], at))
        found += frames.add(camera, stamp, image, now)
    return found


def play(frames, images):
    """Feed (camera, moment, offset in ms) in order; an image is the number of its moment of 100 ms."""
    timed = ((100 * moment + offset, camera, moment) for camera, moment, offset in images)
    return [frame.images for frame in feed(frames, timed)]


def run(frames, images):
    """Feed (time in ms, camera) in order of time; an image is its time."""
    return feed(frames, ((at, camera, at) for at, camera in sorted(images)))


def shots(camera, hertz, seconds, phase=0.0):
    return [(phase + 1e3 * number / hertz, camera) for number in range(round(hertz * seconds))]
