"""Assembles frames of a rig: one image of each camera, taken at about the same time.

Whenever an image arrives, the image of every other camera that is nearest to it in time is looked up;
if all of them lie within `slop` they are a frame. Nothing is searched further, so the work for one
message is bounded by cameras x depth. With a slop below half a camera period no two images of one
camera can fit the same frame, so a lost image cannot pair the following ones off by one.

A camera that the others have waited for in vain for `timeout` is missing: it is silent, or its stamps are
further than the slop from theirs. It holds up nobody: frames go on without it, and with it again as soon as
one of its images fits. Cameras that are all slow, or all pause, are not missing. When a camera's stamps jump
back (a bag that loops, a simulation that restarts) everything is forgotten and assembly starts anew. An image
without a stamp counts as taken on arrival.

This is not message_filters' ApproximateTimeSynchronizer: that one waits for every camera for ever.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

# An older stamp within this time is a late image; beyond it, time was set back.
_SET_BACK_NS = 1_000_000_000
# Images that wait for their partners, for each camera. At 60 Hz this covers a delay of 130 ms.
_DEPTH = 8


@dataclass(frozen=True)
class RigFrame(Generic[T]):
    """Images of one moment, a slot for each camera.

    Attributes:
        images: the image of each camera, None where the camera is missing.
        stamps: their times in nanoseconds, None where the camera is missing.
    """

    images: tuple[T | None, ...]
    stamps: tuple[int | None, ...]


@dataclass
class FrameCounts:
    """What became of the images.

    Attributes:
        received: all images that came.
        frames: frames that were assembled.
        unmatched: images that found no partners within the slop.
        late: images older than, or the same as, one that was used already.
        resets: how often time was set back.
    """

    received: int = 0
    frames: int = 0
    unmatched: int = 0
    late: int = 0
    resets: int = 0


class FrameAssembler(Generic[T]):
    """Collects images until those of all present cameras lie within `slop`.

    Args:
        cameras: how many cameras the rig has.
        slop: largest difference between the stamps of a frame, in seconds.
        timeout: a camera that the others have waited for so long, in seconds, is missing.
    """

    def __init__(self, cameras: int, slop: float, timeout: float) -> None:
        self.slop = slop
        self.timeout = timeout
        self.counts = FrameCounts()
        self._waiting: list[deque[tuple[int, T]]] = [deque() for _ in range(cameras)]
        self._used_until: list[int | None] = [None] * cameras
        self._awaited_since: list[int | None] = [None] * cameras

    def add(self, camera: int, stamp: int, image: T, now: int) -> RigFrame[T] | None:
        """Take an image and return the frame that it completes, if any.

        Args:
            camera: index of the camera.
            stamp: when the image was taken, in nanoseconds; 0 where the driver does not say.
            image: anything; it is handed on as it is.
            now: the present time in nanoseconds, on the same clock as the stamps.
        """
        self.counts.received += 1
        stamp = stamp or now
        if self._was_set_back(camera, stamp):
            self._reset()
        if not self._keep(camera, stamp, image):
            self.counts.late += 1
            return None
        if self._fits_another(camera, stamp):
            # Also when the frame that it fits has gone on without it: the next one waits for it again.
            self._awaited_since[camera] = None
        return self._assemble(stamp, now)

    def missing(self, now: int) -> list[int]:
        """Indices of the cameras that the others have waited for in vain for longer than the timeout."""
        return [camera for camera in range(len(self._waiting)) if self._is_missing(camera, now)]

    def _newest(self, camera: int) -> int | None:
        return self._waiting[camera][-1][0] if self._waiting[camera] else self._used_until[camera]

    def _fits_another(self, camera: int, stamp: int) -> bool:
        others = (self._newest(other) for other in range(len(self._waiting)) if other != camera)
        return any(other is not None and abs(other - stamp) <= self.slop * 1e9 for other in others)

    def _was_set_back(self, camera: int, stamp: int) -> bool:
        newest = self._newest(camera)
        return newest is not None and stamp < newest - _SET_BACK_NS

    def _reset(self) -> None:
        self.counts.resets += 1
        for waiting in self._waiting:
            self.counts.unmatched += len(waiting)
            waiting.clear()
        cameras = len(self._waiting)
        self._used_until = [None] * cameras
        self._awaited_since = [None] * cameras

    def _keep(self, camera: int, stamp: int, image: T) -> bool:
        """Put the image where it belongs in time; False if it comes too late."""
        newest = self._newest(camera)
        if newest is not None and stamp <= newest:
            return False
        waiting = self._waiting[camera]
        waiting.append((stamp, image))
        if len(waiting) > _DEPTH:
            waiting.popleft()
            self.counts.unmatched += 1
        return True

    def _is_missing(self, camera: int, now: int) -> bool:
        since = self._awaited_since[camera]
        return since is not None and now - since > self.timeout * 1e9

    def _assemble(self, stamp: int, now: int) -> RigFrame[T] | None:
        slop = self.slop * 1e9
        chosen = [self._nearest(camera, stamp, slop) for camera in range(len(self._waiting))]
        for camera, entry in enumerate(chosen):
            if entry is None and self._awaited_since[camera] is None:
                self._awaited_since[camera] = now
        if any(entry is None and not self._is_missing(camera, now) for camera, entry in enumerate(chosen)):
            return None
        stamps = [entry[0] for entry in chosen if entry is not None]
        if max(stamps) - min(stamps) > slop:
            return None
        self._forget(chosen)
        self.counts.frames += 1
        return RigFrame(
            images=tuple(entry[1] if entry else None for entry in chosen),
            stamps=tuple(entry[0] if entry else None for entry in chosen),
        )

    def _nearest(self, camera: int, stamp: int, slop: float) -> tuple[int, T] | None:
        nearest = min(self._waiting[camera], key=lambda entry: abs(entry[0] - stamp), default=None)
        return nearest if nearest is not None and abs(nearest[0] - stamp) <= slop else None

    def _forget(self, chosen: list[tuple[int, T] | None]) -> None:
        """Drop what was used and what is older than that."""
        for camera, entry in enumerate(chosen):
            if entry is None:
                continue
            # Also where it is the only one that is not missing.
            self._awaited_since[camera] = None
            waiting = self._waiting[camera]
            while waiting and waiting[0][0] <= entry[0]:
                if waiting.popleft()[0] < entry[0]:
                    self.counts.unmatched += 1
            self._used_until[camera] = entry[0]
