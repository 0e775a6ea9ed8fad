"""Assembles frames of a rig: one image of each camera, taken at about the same time.

When an image arrives, the assembler looks up the nearest image in time of every other camera. If all of them
lie within the slop, they are a frame. The work for one message is therefore bounded by cameras x depth,
unlike that of message_filters' ApproximateTimeSynchronizer, which also waits for every camera for ever.

**Slop.** The largest difference between the stamps of a frame: given, or automatic. The automatic slop is
0.45 of the period of the fastest camera (the median of its last images), between 1 ms and 100 ms; it is 10 ms
until a period is known. Below half a period no two images of one camera can fit the same frame, so that a
lost image cannot pair the following ones off by one.

**Cameras of different rates.** A frame waits for a slower camera only if the next image of that camera is due
within the slop. Between two of its images, frames go on without it if they hold a complete pair. At 30, 15
and 10 Hz each pair is therefore matched whenever both of its cameras have an image.

**Missing cameras.** A camera is missing once the others have waited for it longer than `timeout` (or two of
its periods, if that is longer), because it is silent or out of sync with them. A camera whose stamps are that
much older than the others' is missing too. Frames go on without a missing camera, and with it again as soon
as one of its images fits. Cameras that all pause at once are not missing.

**Stamps.**

- Repeated, or older than the camera's newest by up to 1 s: the image is late and is dropped. After 4 late
  images in a row whose stamps increase, time was set back.
- Older than the camera's newest by more than 1 s, but near another camera's newest: this camera had been far
  ahead of the others. Its waiting images are dropped; those of the others stay.
- Older than every camera's newest by more than 1 s: time was set back (a bag that loops, a simulation that
  restarts). Everything is forgotten, and the frames carry a new `epoch`, so that nothing is matched across
  it.
- Far ahead of the others: the image waits, and is dropped when the camera returns to the others' time. If all
  cameras jump ahead together, nothing happens.
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
# After this many late images in a row with increasing stamps, time was set back by less than that.
_LATE_IN_A_ROW = 4
# Largest number of images per camera that wait for their partners. At 60 Hz this covers a delay of 130 ms.
_DEPTH = 8
# A camera's period is the median of its last periods. A longer time between two images is a pause.
_PERIODS = 15
_PERIODS_TO_TRUST = 3
_LONGEST_PERIOD_NS = 10_000_000_000
# Number of frames whose largest spread is reported.
_SPREADS = 100
# Automatic slop: share of the shortest period, and its bounds in nanoseconds.
_SLOP_SHARE = 0.45
_LEAST_SLOP_NS, _FIRST_SLOP_NS, _MOST_SLOP_NS = 1_000_000, 10_000_000, 100_000_000


@dataclass
class FrameCounts:
    """Counts of images and frames.

    Attributes:
        received: all images.
        frames: frames that were assembled.
        unmatched: images that found no partners within the slop.
        late: images not newer than one that came before.
        resets: number of times that time was set back.
    """

    received: int = 0
    frames: int = 0
    unmatched: int = 0
    late: int = 0
    resets: int = 0


@dataclass
class _Camera(Generic[T]):
    """State of a camera. Times are in nanoseconds.

    Attributes:
        waiting: (stamp, image) of images that are in no frame yet, oldest first.
        used_until: stamp of its last image in a frame.
        came_at: arrival of its newest image.
        idle_since: arrival of its first image after its last frame; None if none has come.
        is_missing: True if the others go on without it.
        periods: last times between two images.
        period: their median; None before there are two images.
        late: stamps of late images in a row.
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
        """Find the waiting image nearest to a moment; None if it is not within the slop."""
        nearest = min(self.waiting, key=lambda entry: abs(entry[0] - stamp), default=None)
        return nearest if nearest is not None and abs(nearest[0] - stamp) <= slop else None

    def measure(self, period: int) -> None:
        """Add the time between two images."""
        if period <= _LONGEST_PERIOD_NS:
            self.periods.append(period)
            self.period = statistics.median_low(self.periods)

    def forget(self) -> int:
        """Forget all images and return how many of them waited."""
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
        timeout: seconds after which a camera that the others wait for is missing.
        absent: cameras that are known not to come; the others never wait for them.

    Attributes:
        fixed_slop: `slop` as it was given; may be set at any time.
        timeout: may be set at any time.
        counts: of images and frames.
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
        # First and last stamp, and time of assembly, of the last frame of cameras that are not missing.
        self._last_frame: tuple[int, int] | None = None
        self._last_frame_at = 0
        self._now: int | None = None
        self._spreads: deque[int] = deque([0], maxlen=_SPREADS)

    @property
    def slop(self) -> float:
        """Slop in use, in seconds."""
        return self._slop() * 1e-9

    def add(self, camera: int, stamp: int, image: T, now: int) -> RigFrame[T] | None:
        """Take an image and return the frame that it completes, if any.

        Args:
            camera: its index in the rig.
            stamp: time in nanoseconds at which the image was taken, by the clock of the camera's driver. If
                the driver does not set stamps, the caller gives the time of arrival.
            image: any object; it is handed on as it is.
            now: time of arrival in nanoseconds, on a steady clock of any origin.
        """
        self.counts.received += 1
        self._follow_clock(now)
        self._follow_stamps(camera, stamp)
        if not self._keep(camera, stamp, image, now):
            self.counts.late += 1
            return None
        self._readmit(camera, stamp, now)
        return self._assemble(stamp, now)

    def missing(self) -> list[int]:
        """Return the indices of the missing cameras."""
        return [number for number, camera in enumerate(self._cameras) if camera.is_missing]

    def out_of_sync(self) -> dict[int, float]:
        """Return the missing cameras whose images come, and by how many seconds their clocks are ahead.

        A clock that is behind has a negative number. The number is near zero if the clocks agree, but the
        camera takes its images at other moments than the others.
        """
        clocks = {
            number: (camera.newest - camera.came_at) * 1e-9
            for number, camera in enumerate(self._cameras)
            if camera.newest is not None and (self._now or 0) - camera.came_at <= self._timeout(camera)
        }
        missing = self.missing()
        in_sync = [clock for number, clock in clocks.items() if number not in missing]
        if not in_sync:
            return {}
        clock = statistics.median(in_sync)
        return {number: clocks[number] - clock for number in missing if number in clocks}

    @property
    def spread(self) -> float:
        """Largest difference between the stamps of one frame, over the last frames, in seconds."""
        return max(self._spreads) * 1e-9

    def _slop(self) -> float:
        return self.fixed_slop * 1e9 if self.fixed_slop else self._automatic_slop()

    def _automatic_slop(self) -> float:
        periods = [camera.period for camera in self._cameras if camera.period is not None]
        if not periods:
            return _FIRST_SLOP_NS
        return min(max(_SLOP_SHARE * min(periods), _LEAST_SLOP_NS), _MOST_SLOP_NS)

    def _follow_clock(self, now: int) -> None:
        """Restart the timeouts if the clock itself was set back; they would last that much longer."""
        if self._now is not None and now < self._now:
            self._last_frame_at = min(self._last_frame_at, now)
            for camera in self._cameras:
                camera.came_at = min(camera.came_at, now)
                if camera.idle_since is not None:
                    camera.idle_since = now
        self._now = now

    def _follow_stamps(self, camera: int, stamp: int) -> None:
        """Forget earlier images if the stamps were set back."""
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
        """Add an image to the waiting ones; return False if it is late."""
        known = self._cameras[camera]
        if known.newest is not None:
            if stamp <= known.newest:
                return False
            known.measure(stamp - known.newest)
        known.waiting.append((stamp, image))
        known.came_at = now
        if known.idle_since is None:
            known.idle_since = now
        if len(known.waiting) > _DEPTH:
            known.waiting.popleft()
            self.counts.unmatched += 1
        return True

    def _readmit(self, camera: int, stamp: int, now: int) -> None:
        """Wait again for a missing camera whose image would have fitted the last frame."""
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
        self._mark_missing(present, stamp, now)
        if self._must_wait(present, stamp):
            return None
        self._drop_used(chosen)
        self._update_missing(present, stamps, now)
        self.counts.frames += 1
        self._spreads.append(max(stamps) - min(stamps))
        return RigFrame(
            images=tuple(entry[1] if entry else None for entry in chosen),
            stamps=tuple(entry[0] if entry else None for entry in chosen),
            missing=frozenset(self.missing()) - present,
            epoch=self.counts.resets,
        )

    def _mark_missing(self, present: set[int], stamp: int, now: int) -> None:
        """Mark absent cameras as missing once every present camera has waited longer than the timeout."""
        if self._are_missing(present) and now - self._last_frame_at <= self.timeout * 1e9:
            # The present cameras are themselves out of sync with the main group, which goes on without them.
            return
        idle_since = (self._cameras[camera].idle_since for camera in present)
        waiting_since = max(since for since in idle_since if since is not None)
        has_pair = self.rig.is_served_by(present)
        for number, camera in enumerate(self._cameras):
            if number in present:
                continue
            timeout = self._timeout(camera)
            is_due = self._is_due(camera, stamp)
            newest = camera.newest if camera.came_at > waiting_since else None
            is_behind = is_due and newest is not None and stamp - newest > timeout
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
        is_any_due = any(self._is_due(camera, stamp) for camera in between)
        return is_any_due or (bool(between) and not self.rig.is_served_by(present))

    def _update_missing(self, present: set[int], stamps: list[int], now: int) -> None:
        """Update the missing flags after a frame has been assembled."""
        members = [self._cameras[number] for number in present]
        for camera in members:
            camera.idle_since = now if camera.waiting else None
        absent = set(range(len(self._cameras))) - present
        if self._are_missing(present) and not self._are_missing(absent):
            # Missing cameras that are in sync with each other only stay missing.
            return
        for camera in members:
            camera.is_missing = False
        for camera in (self._cameras[number] for number in absent):
            if camera.idle_since is not None and now - camera.idle_since > self._timeout(camera):
                camera.is_missing = True
        self._last_frame = (min(stamps), max(stamps))
        self._last_frame_at = now

    def _is_due(self, camera: _Camera[T], stamp: int) -> bool:
        """Return True if the next image of a camera is expected by that moment."""
        if camera.newest is None or len(camera.periods) < _PERIODS_TO_TRUST:
            return True
        # The shortest period, because a lost image makes a period too long. Far shorter than the median is a
        # glitch: a stamp off by a millisecond must not make the others wait for this camera at every moment.
        period = min(period for period in camera.periods if 2 * period >= (camera.period or 0))
        reach = max(self._slop(), self._automatic_slop())
        return camera.newest + period <= stamp + reach

    def _drop_used(self, chosen: list[tuple[int, T] | None]) -> None:
        """Drop the images of a frame and those older than them."""
        for camera, entry in zip(self._cameras, chosen, strict=True):
            if entry is None:
                continue
            while camera.waiting and camera.waiting[0][0] <= entry[0]:
                if camera.waiting.popleft()[0] < entry[0]:
                    self.counts.unmatched += 1
            camera.used_until = entry[0]
