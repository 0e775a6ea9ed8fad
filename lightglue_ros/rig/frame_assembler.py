"""Assembles frames of a rig: one image of each camera, taken at about the same time.

When an image arrives, the assembler sorts the images that wait into moments: one image of each camera, all
within the slop. A moment becomes a frame as soon as no image can join it any more. The work for one message
is bounded, because at most 8 images of a camera wait.

**Slop.** The largest difference between the stamps of a frame: given, or automatic. The automatic slop is
0.45 of the period of the fastest camera (the median of its last images), between 1 ms and 100 ms; it is 10 ms
until a period is known. Below half a period no two images of one camera can fit the same frame, so that a
lost image cannot pair the following ones off by one.

**A moment waits for a camera** whose next image is due within the slop. It does not wait

- if that camera has sent a later image: its image of this moment is lost, or it is between two images. At
  30, 15 and 10 Hz each pair is therefore matched whenever both of its cameras have an image;
- if the stamps of that camera are far from those of the moment, because its clock differs, or older than its
  own last ones. A camera whose clock is wrong does not hold up the others, and is not held up by them;
- if that camera is missing, or if as many images wait as may wait.

It also waits for cameras that fit only its last images, if it is better to split it (see `moments`).

After the stamps of a camera have jumped, its first moment waits for the next image of every other camera,
because the time of all may have been set; then for its own, because a single stamp may be wrong.

**Frames** of a camera go out in order of time, if they complete a pair. Cameras whose clock differs make
frames of their own. If the cameras that are not missing complete no pair, their frames go out to say so.

**Missing cameras.** The largest group of cameras that make frames together leads. A camera is missing if no
image of it has fitted theirs for `timeout` (or two of its periods, if that is longer), because it is silent
or out of sync. It is back as soon as one of its images fits. Cameras that all pause at once are not missing.

**Stamps.**

- Repeated, or older than the camera's newest by up to 1 s: the image is late and is dropped. After 4 late
  images in a row whose stamps increase, the camera's time was set back.
- Older than the camera's newest by more than 1 s: its time was set back (a bag that loops, a simulation that
  restarts, a driver that corrects its clock). The camera's images that wait are dropped. If frames have gone
  out with later stamps, it begins a new epoch, so that its images are not matched across it.
- Far ahead: a single image is dropped when the camera returns to the others' time.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from lightglue_ros.rig.frame import RigFrame
from lightglue_ros.rig.moments import Moment, sort_into_moments, split_at_widest_gap, spread_of, worth
from lightglue_ros.rig.rig import Rig

T = TypeVar("T")

# An older stamp within this time is a late image; beyond it, the camera's time was set back.
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
        resets: number of times that time was set back, of the camera for which this happened most often.
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
        last_frame: first and last stamp of that frame.
        number: of its newest image, counted over all cameras.
        clock_since: number of the image at which its stamps last jumped.
        came_at: arrival of its newest image.
        epoch: number of times that its time was set back.
        periods: last times between two images.
        period: their median; 0 before there are two images.
        late: stamps of late images in a row.
    """

    waiting: deque[tuple[int, T]] = field(default_factory=deque)
    used_until: int | None = None
    last_frame: tuple[int, int] = (0, 0)
    number: int = 0
    clock_since: int = 0
    came_at: int = 0
    epoch: int = 0
    periods: deque[int] = field(default_factory=lambda: deque(maxlen=_PERIODS))
    period: int = 0
    late: list[int] = field(default_factory=list)

    @property
    def newest(self) -> int | None:
        """Stamp of its newest image."""
        return self.waiting[-1][0] if self.waiting else self.used_until

    def measure(self, period: int) -> None:
        """Add the time between two images."""
        if period <= _LONGEST_PERIOD_NS:
            self.periods.append(period)
            self.period = statistics.median_low(self.periods)


class FrameAssembler(Generic[T]):
    """Collects images until those of all present cameras lie within the slop; see the head of this module.

    Args:
        rig: cameras and pairs. It may be replaced by one with other pairs at any time.
        slop: largest difference between the stamps of a frame, in seconds; 0 is automatic.
        timeout: seconds after which a camera whose images do not fit is missing.
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
        self._cameras: list[_Camera[T]] = [_Camera() for _ in rig.cameras]
        self._spreads: deque[int] = deque([0], maxlen=_SPREADS)
        # Period of the fastest camera; 0 before it is known.
        self._period = 0
        # Steady time, without the pauses of all cameras.
        self._now: int | None = None
        self._time = 0.0
        # When images of two cameras last fitted each other; when a camera last was in a frame.
        self._met = [
            [-math.inf if {one, other} & set(absent) else 0.0 for other in range(len(rig.cameras))]
            for one in range(len(rig.cameras))
        ]

    def add(self, camera: int, stamp: int, image: T, now: int) -> list[RigFrame[T]]:
        """Take an image and return the frames that are ready, oldest first.

        Args:
            camera: its index in the rig.
            stamp: time in nanoseconds at which the image was taken, by the clock of the camera's driver. If
                the driver does not set stamps, the caller gives the time of arrival.
            image: any object; it is handed on as it is.
            now: time of arrival in nanoseconds, on a steady clock of any origin.
        """
        self.counts.received += 1
        self._follow_stamps(camera, stamp)
        if not self._keep(camera, stamp, image):
            self.counts.late += 1
            return []
        self._pass_time(now)
        self._cameras[camera].came_at = now
        self._readmit(camera, stamp)
        return [self._make_frame(moment) for moment in self._ready_moments(camera, stamp)]

    def finish(self) -> list[RigFrame[T]]:
        """Return the frames that still wait, when no more images will come."""
        return [self._make_frame(it) for it in self._moments() if self.rig.is_served_by(set(it))]

    @property
    def slop(self) -> float:
        """Slop in use, in seconds."""
        return self._slop() * 1e-9

    @property
    def spread(self) -> float:
        """Largest difference between the stamps of one frame, over the last frames, in seconds."""
        return max(self._spreads) * 1e-9

    def missing(self) -> list[int]:
        """Return the indices of the missing cameras."""
        numbers = range(len(self._cameras))
        groups = [{other for other in numbers if self._are_together(one, other)} for one in numbers]
        leading = max(numbers, key=lambda one: (len(groups[one]), self._is_heard(one)))
        return [number for number in numbers if number not in groups[leading] | {leading}]

    def out_of_sync(self) -> dict[int, float]:
        """Return the missing cameras whose images come, and by how many seconds their clocks are ahead.

        A clock that is behind has a negative number. The number is near zero if the clocks agree, but the
        camera takes its images at other moments than the others.
        """
        clocks = {
            number: (camera.newest - camera.came_at) * 1e-9
            for number, camera in enumerate(self._cameras)
            if camera.newest is not None and self._is_heard(number)
        }
        missing = self.missing()
        in_sync = [clock for number, clock in clocks.items() if number not in missing]
        if not in_sync:
            return {}
        clock = statistics.median(in_sync)
        return {number: clocks[number] - clock for number in missing if number in clocks}

    def _slop(self) -> float:
        return self.fixed_slop * 1e9 if self.fixed_slop else self._automatic_slop()

    def _automatic_slop(self) -> float:
        slop = min(max(_SLOP_SHARE * self._period, _LEAST_SLOP_NS), _MOST_SLOP_NS)
        return slop if self._period else _FIRST_SLOP_NS

    def _timeout(self, camera: int) -> float:
        return max(self.timeout * 1e9, 2 * self._cameras[camera].period)

    def _is_heard(self, camera: int) -> bool:
        known = self._cameras[camera]
        return known.number > 0 and (self._now or 0) - known.came_at <= self._timeout(camera)

    def _are_together(self, one: int, other: int) -> bool:
        return self._time - self._met[one][other] <= max(self._timeout(one), self._timeout(other))

    def _pass_time(self, now: int) -> None:
        """Advance the time, by less than any timeout, so that no camera is missing after a pause of all.

        Late images do not count: with stamps that stand still all cameras pause.
        """
        if self._now is not None and now > self._now:
            self._time += min(now - self._now, min(map(self._timeout, range(len(self._cameras)))) / 2)
        self._now = now

    def _follow_stamps(self, camera: int, stamp: int) -> None:
        """Notice that the stamps of a camera have jumped."""
        known = self._cameras[camera]
        newest = known.newest
        if newest is None or stamp > newest:
            known.late = []
            if newest is None or stamp - newest > self._far(known):
                known.clock_since = self.counts.received
            return
        known.late = [*known.late, stamp] if known.late and stamp > known.late[-1] else [stamp]
        if stamp < newest - _SET_BACK_NS or len(known.late) >= _LATE_IN_A_ROW:
            self._set_back(known, stamp)

    def _set_back(self, known: _Camera[T], stamp: int) -> None:
        self.counts.unmatched += len(known.waiting)
        known.waiting.clear()
        known.late = []
        known.clock_since = self.counts.received
        if known.used_until is not None and stamp <= known.used_until:
            known.used_until = None
            known.epoch += 1
            self.counts.resets = max(self.counts.resets, known.epoch)

    def _keep(self, camera: int, stamp: int, image: T) -> bool:
        """Add an image to the waiting ones; return False if it is late."""
        known = self._cameras[camera]
        if known.newest is not None:
            if stamp <= known.newest:
                return False
            known.measure(stamp - known.newest)
            self._period = min((one.period for one in self._cameras if one.period), default=0)
        known.waiting.append((stamp, image))
        known.number = self.counts.received
        if len(known.waiting) > _DEPTH:
            known.waiting.popleft()
            self.counts.unmatched += 1
        return True

    def _readmit(self, camera: int, stamp: int) -> None:
        """Note with which cameras an image would have fitted, had their last frame waited for it."""
        for other, known in enumerate(self._cameras):
            if other != camera and known.used_until is not None:
                oldest, newest = known.last_frame
                if max(newest, stamp) - min(oldest, stamp) <= self._slop():
                    self._meet(camera, other)

    def _meet(self, one: int, other: int) -> None:
        self._met[one][other] = self._met[other][one] = self._time

    def _ready_moments(self, camera: int, stamp: int) -> list[Moment[T]]:
        """Return the moments that become frames now that an image has come, oldest first."""
        moments = self._moments()
        newest = next(moment for moment in moments if camera in moment and moment[camera][0] == stamp)
        for other in newest.keys() - {camera}:
            self._meet(camera, other)
        ready: list[Moment[T]] = []
        blocked: set[int] = set()  # cameras of older moments that wait
        for moment in moments:
            going = self._going(moment) if blocked.isdisjoint(moment) else {}
            blocked |= moment.keys() - going.keys()
            is_served = self.rig.is_served_by(set(going))
            if going and (is_served or (going is newest and self._is_hopeless(camera))):
                ready.append(going)
        return ready

    def _is_hopeless(self, camera: int) -> bool:
        """Return True if a camera leads, and the leading cameras together complete no pair."""
        leading = set(range(len(self._cameras))).difference(self.missing())
        return camera in leading and not self.rig.is_served_by(leading)

    def _moments(self) -> list[Moment[T]]:
        queues = [camera.waiting for camera in self._cameras]
        return sort_into_moments(self.rig, queues, self._slop())

    def _going(self, moment: Moment[T]) -> Moment[T]:
        """Return the part of a moment that does not wait for images of other cameras that can still join."""
        members = [self._cameras[camera] for camera in moment]
        others = [
            other
            for other in range(len(self._cameras))
            if other not in moment and any(self._are_together(other, camera) for camera in moment)
        ]
        if others and len(members) == 1 and members[0].number == members[0].clock_since:
            return {}
        stamp = min(stamp for stamp, _ in moment.values())
        clock_since = max(known.clock_since for known in members)
        awaited = {one for one in others if self._may_join(self._cameras[one], stamp, clock_since)}
        awaited = awaited or self._awaited_by_a_part(moment, others, clock_since)
        queues = {camera: self._cameras[camera].waiting for camera in moment}
        full = {one for one, queue in queues.items() if len(queue) == _DEPTH and queue[0] is moment[one]}
        # If they went on waiting, their images would be dropped. They go alone if more pairs are served so.
        parts = full, (moment.keys() - full) | awaited
        gain = sum(map(self.rig.count_served, parts)) - self.rig.count_served(set(moment))
        if awaited and (not full or gain > 0):
            return {camera: moment[camera] for camera in full}
        return moment

    def _awaited_by_a_part(self, moment: Moment[T], others: Sequence[int], clock_since: int) -> set[int]:
        """Return cameras that the last members wait for, because they are better off with these."""
        first, last = split_at_widest_gap(moment)
        begin = min(last.values(), key=lambda entry: entry[0])
        awaited = {one for one in others if self._may_join(self._cameras[one], begin[0], clock_since)}
        expected = dict.fromkeys(awaited, begin)
        is_better = worth(self.rig, [first, last | expected]) > worth(self.rig, [moment, expected])
        return awaited if first and awaited and is_better else set()

    def _may_join(self, known: _Camera[T], stamp: int, clock_since: int) -> bool:
        """Return True if the next image of a camera is expected by a moment that began at a stamp."""
        newest = known.newest
        if newest is None:
            return True
        if known.late and known.late[-1] < newest:  # its time may have been set back
            return False
        if not -self._far(known) <= newest - stamp <= self._slop():
            # Its clock differs, or the moment is past. But if it has not come since the stamps of a camera of
            # the moment have jumped, its own may jump, too.
            return known.number < clock_since
        if len(known.periods) < _PERIODS_TO_TRUST:
            return True
        # The shortest period, because a lost image makes a period too long. Far shorter than the median is a
        # glitch: a stamp off by a millisecond must not make the others wait for this camera at every moment.
        period = min(period for period in known.periods if 2 * period >= known.period)
        return newest + period - stamp <= max(self._slop(), self._automatic_slop())

    def _far(self, known: _Camera[T]) -> float:
        """Return how far a camera's newest stamp may be from the others', which do not wait any longer."""
        longest_wait = (_DEPTH - 1) * self._period or _SET_BACK_NS
        return max(min(self.timeout * 1e9, longest_wait), 2 * known.period)

    def _make_frame(self, moment: Moment[T]) -> RigFrame[T]:
        """Take the images of a moment; older ones of its cameras are dropped."""
        stamps = [stamp for stamp, _ in moment.values()]
        for camera, (stamp, _) in moment.items():
            known = self._cameras[camera]
            while known.waiting and known.waiting[0][0] <= stamp:
                if known.waiting.popleft()[0] < stamp:
                    self.counts.unmatched += 1
            known.used_until, known.last_frame = stamp, (min(stamps), max(stamps))
            for other in moment:
                self._meet(camera, other)
        self._spreads.append(spread_of(moment))
        self.counts.frames += 1
        numbers = range(len(self._cameras))
        return RigFrame(
            images=tuple(moment[n][1] if n in moment else None for n in numbers),
            stamps=tuple(moment[n][0] if n in moment else None for n in numbers),
            missing=frozenset(n for n in numbers if not self._are_together(n, n)),
            epochs=tuple(camera.epoch for camera in self._cameras),
        )
