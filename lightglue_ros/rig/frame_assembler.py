"""Assembles frames of a rig: one image of each camera, taken at about the same time.

Whenever an image arrives, the image of every other camera that is nearest to it in time is looked up;
if all of them lie within the slop they are a frame. Nothing is searched further, so the work for one
message is bounded by cameras x depth. This is not message_filters' ApproximateTimeSynchronizer: that one
waits for every camera for ever.

**Slop.** Given, or automatic: 0.45 of the period of the fastest camera, as measured (the median over its
last images), between 1 ms and 100 ms, and 10 ms as long as nothing is measured. Below half a period no two
images of one camera can fit the same frame, so a lost image cannot pair the following ones off by one.

**Cameras of different rates.** A slower camera is waited for only when its next image is due within the
slop; between its images, frames go on without it if they hold a pair that is complete. So at 30, 15 and 10 Hz
each pair comes at each moment at which both its cameras have an image.

**A missing camera.** One that the others have waited for in vain for `timeout` (or two of its periods, if
that is longer) is missing: it is silent, or its stamps do not fit theirs. So is one whose images come with
stamps that are older than the others' by so much. It holds up nobody: frames go on without it, and with it
again as soon as one of its images fits. Cameras that all pause are not missing.

**Stamps.**

- zero: the driver does not say; the image counts as taken on arrival;
- repeated, or older by up to 1 s than the camera's newest: late, dropped; after 4 of those in a row that go
  forward among themselves, time was set back;
- older by more than 1 s than the camera's newest, but near to another camera's: that camera had been far
  ahead of the others; its waiting images are dropped, the others' are not;
- older by more than 1 s than all cameras' newest: time was set back (a bag that loops, a simulation that
  restarts). Everything is forgotten, and frames carry a new `epoch`, so that nothing is matched across it;
- far ahead of the others: waits, and is dropped when the camera returns to the others' time. Where all go
  ahead together, nothing happens.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from lightglue_ros.rig.frame import RigFrame
from lightglue_ros.rig.rig import Rig

T = TypeVar("T")

# An older stamp within this time is a late image; beyond it, time was set back.
_SET_BACK_NS = 1_000_000_000
# So many late images in a row, one after the other, are a time that was set back by less than that.
_LATE_IN_A_ROW = 4
# Images that wait for their partners, for each camera. At 60 Hz this covers a delay of 130 ms.
_DEPTH = 8
# Periods of which the median is taken, and the longest; a longer time between two images is a pause.
_PERIODS = 15
_PERIODS_TO_TRUST = 3
_LONGEST_PERIOD_NS = 10_000_000_000
# The automatic slop: share of the shortest period, and its bounds in nanoseconds.
_SLOP_SHARE = 0.45
_LEAST_SLOP_NS, _FIRST_SLOP_NS, _MOST_SLOP_NS = 1_000_000, 10_000_000, 100_000_000


@dataclass
class FrameCounts:
    """What became of the images.

    Attributes:
        received: all images that came.
        frames: frames that were assembled.
        unmatched: images that found no partners within the slop.
        late: images older than, or the same as, one that came before.
        resets: how often time was set back.
    """

    received: int = 0
    frames: int = 0
    unmatched: int = 0
    late: int = 0
    resets: int = 0


@dataclass
class _Camera(Generic[T]):
    """What is known of a camera.

    Attributes:
        waiting: (stamp, image) of images that are in no frame yet, oldest first.
        used_until: stamp of its last image in a frame.
        came_at: when its newest image came.
        idle_since: when its first image after its last frame came; None if none has come.
        is_missing: whether the others have waited for it in vain.
        periods: last times between two images, in nanoseconds.
        period: their median; None before there are two images.
        late: stamps of the last images that came too late, one after the other.
    """

    waiting: deque[tuple[int, T]] = field(default_factory=deque)
    used_until: int | None = None
    came_at: int = 0
    idle_since: int | None = None
    is_missing: bool = False
    periods: deque[int] = field(default_factory=lambda: deque(maxlen=_PERIODS))
    period: int | None = None
    late: list[int] = field(default_factory=list)

    @property
    def newest(self) -> int | None:
        """Stamp of its newest image."""
        return self.waiting[-1][0] if self.waiting else self.used_until

    def nearest(self, stamp: int, slop: float) -> tuple[int, T] | None:
        """The waiting image that is nearest to a moment, if it lies within the slop."""
        nearest = min(self.waiting, key=lambda entry: abs(entry[0] - stamp), default=None)
        return nearest if nearest is not None and abs(nearest[0] - stamp) <= slop else None

    def measure(self, period: int) -> None:
        """Take the time between two images."""
        if period > _LONGEST_PERIOD_NS:
            return
        self.periods.append(period)
        self.period = statistics.median_low(self.periods)

    def forget(self) -> int:
        """Forget all images; returns how many waited."""
        dropped = len(self.waiting)
        self.waiting.clear()
        self.used_until = self.idle_since = None
        self.late = []
        return dropped


class FrameAssembler(Generic[T]):
    """Collects images until those of all present cameras lie within the slop; see the head of this module.

    Args:
        rig: cameras and pairs. It may be replaced by one with other pairs at any time.
        slop: largest difference between the stamps of a frame, in seconds; 0 is automatic.
        timeout: a camera that the others have waited for so long, in seconds, is missing.
        absent: cameras that are known not to come; the others do not wait for them at all.

    Attributes:
        fixed_slop: `slop` as it was given; may be set at any time.
        timeout: may be set at any time.
        counts: what became of the images.
    """

    def __init__(self, rig: Rig, slop: float, timeout: float, absent: Collection[int] = ()) -> None:
        self.rig = rig
        self.fixed_slop = slop
        self.timeout = timeout
        self.counts = FrameCounts()
        self._absent = frozenset(absent)
        self._cameras: list[_Camera[T]] = [
            _Camera(is_missing=number in self._absent) for number in range(len(rig.cameras))
        ]
        # Of the last frame of cameras that are not missing: its first and last stamp, and when it was made.
        self._last_frame: tuple[int, int] | None = None
        self._last_frame_at = 0
        self._now: int | None = None

    @property
    def slop(self) -> float:
        """The slop in use, in seconds."""
        return self._slop() * 1e-9

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
        self._follow_clock(now)
        self._follow_stamps(camera, stamp)
        if not self._keep(camera, stamp, image, now):
            self.counts.late += 1
            return None
        self._take_back(camera, stamp, now)
        return self._assemble(stamp, now)

    def missing(self) -> list[int]:
        """Indices of the cameras that the others have waited for in vain."""
        return [number for number, camera in enumerate(self._cameras) if camera.is_missing]

    def _slop(self) -> float:
        return self.fixed_slop * 1e9 if self.fixed_slop else self._automatic_slop()

    def _automatic_slop(self) -> float:
        periods = [camera.period for camera in self._cameras if camera.period is not None]
        if not periods:
            return _FIRST_SLOP_NS
        return min(max(_SLOP_SHARE * min(periods), _LEAST_SLOP_NS), _MOST_SLOP_NS)

    def _follow_clock(self, now: int) -> None:
        """Wait anew where the clock itself was set back; else a timeout would last as long as that."""
        if self._now is not None and now < self._now:
            self._last_frame_at = min(self._last_frame_at, now)
            for camera in self._cameras:
                camera.came_at = min(camera.came_at, now)
                if camera.idle_since is not None:
                    camera.idle_since = now
        self._now = now

    def _follow_stamps(self, camera: int, stamp: int) -> None:
        """Forget what came before where stamps were set back."""
        known = self._cameras[camera]
        newest = known.newest
        if newest is None or stamp > newest:
            known.late = []
            return
        known.late = [*known.late, stamp] if known.late and stamp > known.late[-1] else [stamp]
        if stamp < newest - _SET_BACK_NS and self._is_near_another(camera, stamp):
            self.counts.unmatched += known.forget()
        elif stamp < newest - _SET_BACK_NS or len(known.late) >= _LATE_IN_A_ROW:
            self._reset()

    def _is_near_another(self, camera: int, stamp: int) -> bool:
        others = (known.newest for other, known in enumerate(self._cameras) if other != camera)
        return any(newest is not None and abs(newest - stamp) < _SET_BACK_NS for newest in others)

    def _reset(self) -> None:
        self.counts.resets += 1
        for number, camera in enumerate(self._cameras):
            self.counts.unmatched += camera.forget()
            camera.is_missing = number in self._absent
        self._last_frame = None

    def _keep(self, camera: int, stamp: int, image: T, now: int) -> bool:
        """Put the image where it belongs in time; False if it comes too late."""
        known = self._cameras[camera]
        newest = known.newest
        if newest is not None:
            if stamp <= newest:
                return False
            known.measure(stamp - newest)
        known.waiting.append((stamp, image))
        known.came_at = now
        if known.idle_since is None:
            known.idle_since = now
        if len(known.waiting) > _DEPTH:
            known.waiting.popleft()
            self.counts.unmatched += 1
        return True

    def _take_back(self, camera: int, stamp: int, now: int) -> None:
        """Let the next frame wait again for a missing camera whose image would have fitted the last one."""
        known = self._cameras[camera]
        if self._last_frame is None or not known.is_missing:
            return
        oldest, newest = self._last_frame
        if max(newest, stamp) - min(oldest, stamp) <= self._slop():
            known.is_missing = False
            known.idle_since = now

    def _assemble(self, stamp: int, now: int) -> RigFrame[T] | None:
        slop = self._slop()
        chosen = [camera.nearest(stamp, slop) for camera in self._cameras]
        stamps = [entry[0] for entry in chosen if entry is not None]
        if max(stamps) - min(stamps) > slop:
            return None
        present = {camera for camera, entry in enumerate(chosen) if entry is not None}
        self._give_up(present, stamp, now)
        if self._must_wait(present, stamp):
            return None
        self._forget(chosen)
        self._follow_presence(present, stamps, now)
        self.counts.frames += 1
        return RigFrame(
            images=tuple(entry[1] if entry else None for entry in chosen),
            stamps=tuple(entry[0] if entry else None for entry in chosen),
            missing=frozenset(self.missing()) - present,
            epoch=self.counts.resets,
        )

    def _give_up(self, present: set[int], stamp: int, now: int) -> None:
        """Call those missing for which all of the present have waited for too long, or would have to."""
        if self._are_missing(present) and now - self._last_frame_at <= self.timeout * 1e9:
            return  # They wait because they do not fit the others, who go on.
        waiting_since = max(self._cameras[camera].idle_since for camera in present)
        has_pair = self.rig.is_served_by(present)
        for number, camera in enumerate(self._cameras):
            if number in present:
                continue
            timeout = self._timeout(camera)
            is_due = self._is_due(camera, stamp)
            has_come = camera.newest is not None and camera.came_at > waiting_since
            is_behind = is_due and has_come and stamp - camera.newest > timeout
            is_in_vain = now - waiting_since > timeout and (is_due or not has_pair)
            if is_behind or is_in_vain:
                camera.is_missing = True

    def _are_missing(self, cameras: set[int]) -> bool:
        return all(self._cameras[camera].is_missing for camera in cameras)

    def _timeout(self, camera: _Camera[T]) -> float:
        return max(self.timeout * 1e9, 2 * (camera.period or 0))

    def _must_wait(self, present: set[int], stamp: int) -> bool:
        absent = [camera for number, camera in enumerate(self._cameras) if number not in present]
        between = [camera for camera in absent if not camera.is_missing]
        if any(self._is_due(camera, stamp) for camera in between):
            return True
        return bool(between) and not self.rig.is_served_by(present)

    def _follow_presence(self, present: set[int], stamps: list[int], now: int) -> None:
        """After a frame: who of its cameras is missing no longer, and who of the others is from now on."""
        members = [self._cameras[number] for number in present]
        for camera in members:
            camera.idle_since = now if camera.waiting else None
        absent = set(range(len(self._cameras))) - present
        if self._are_missing(present) and not self._are_missing(absent):
            return  # Missing cameras that fit each other only are no better than before.
        for camera in members:
            camera.is_missing = False
        for camera in (self._cameras[number] for number in absent):
            if camera.idle_since is not None and now - camera.idle_since > self._timeout(camera):
                camera.is_missing = True
        self._last_frame = (min(stamps), max(stamps))
        self._last_frame_at = now

    def _is_due(self, camera: _Camera[T], stamp: int) -> bool:
        """Whether a camera's next image is to be expected by that moment."""
        if camera.newest is None or len(camera.periods) < _PERIODS_TO_TRUST:
            return True
        # The shortest period, for a lost image makes one that is too long.
        reach = max(self._slop(), self._automatic_slop())
        return camera.newest + min(camera.periods) <= stamp + reach

    def _forget(self, chosen: list[tuple[int, T] | None]) -> None:
        """Drop what was used and what is older than that."""
        for camera, entry in zip(self._cameras, chosen, strict=True):
            if entry is None:
                continue
            while camera.waiting and camera.waiting[0][0] <= entry[0]:
                if camera.waiting.popleft()[0] < entry[0]:
                    self.counts.unmatched += 1
            camera.used_until = entry[0]
