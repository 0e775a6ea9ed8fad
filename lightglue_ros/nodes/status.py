"""How a matcher is doing: rates, times and counts, and what they mean, for `/diagnostics`.

ERROR: no matches for two camera timeouts (no image comes, none fits another, or every frame fails).
WARN: no matches yet, a camera is missing or its QoS does not fit, its intrinsics are wanted and not known,
images were rejected or a frame failed within the last second.
Frames dropped because the cameras are faster than inference are counted and are no reason to warn.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from lightglue_ros.rig.frames import FrameCounts

# Frames over which percentiles are taken.
_TIMED_FRAMES = 100


class MatcherStatus:
    """Collects what happens. Each number is written by one thread only; `report` may be called by another.

    Args:
        cameras: their names.
        topics: of their images.
        results: what is made of them.
    """

    def __init__(self, cameras: Sequence[str], topics: Sequence[str], results: str) -> None:
        self._cameras = cameras
        self._topics = topics
        self._results = results
        self._times: deque[tuple[float, float, float]] = deque(maxlen=_TIMED_FRAMES)
        self._images = [0] * len(cameras)
        self._matched = self._failed = 0
        self._last_error = ""
        self._idle_since = self._reported_at = time.monotonic()
        self._before = self._totals(0)

    def image(self, camera: int) -> None:
        """An image came."""
        self._images[camera] += 1

    def matched(self, inference: float, outside: float, age: float) -> None:
        """A frame was published: seconds inside and outside inference, and since its images were taken."""
        self._times.append((inference, outside, age))
        self._matched += 1
        self._idle_since = time.monotonic()

    def failed(self, error: Exception) -> None:
        """A frame was lost to an error."""
        self._failed += 1
        self._last_error = f"{type(error).__name__}: {error}"

    def report(
        self,
        about: Mapping[str, str],
        counts: FrameCounts,
        dropped: int,
        rejected: Mapping[str, int],
        missing: Sequence[int],
        timeout: float,
        incompatible: str = "",
        unverified: str = "",
    ) -> DiagnosticStatus:
        """Make the status; rates are those since the last call.

        Args:
            about: more values, to go first.
            counts: of the frame assembly.
            dropped: frames that were overtaken by newer ones.
            rejected: images that could not be used, by cause.
            missing: indices of missing cameras.
            timeout: seconds after which a camera is missing.
            incompatible: publishers whose QoS the subscriptions cannot take, in words.
            unverified: why pairs were not verified, in words.
        """
        now = time.monotonic()
        totals = self._totals(sum(rejected.values()))
        elapsed = max(now - self._reported_at, 1e-3)
        since = {name: total - self._before[name] for name, total in totals.items()}
        self._before, self._reported_at = totals, now
        # A list at once, for the worker goes on adding.
        times = 1e3 * np.array(list(self._times) or [(0.0, 0.0, 0.0)])
        inference, outside, age = (np.percentile(column, (50, 95)) for column in times.T)
        values = {
            **about,
            "rate (Hz)": f"{since['matched'] / elapsed:.1f}",
            "age p50 (ms)": f"{age[0]:.1f}",
            "age p95 (ms)": f"{age[1]:.1f}",
            "age beyond inference p99 (ms)": f"{np.percentile(times[:, 2] - times[:, 0], 99):.1f}",
            "inference p50 (ms)": f"{inference[0]:.2f}",
            "inference p95 (ms)": f"{inference[1]:.2f}",
            "outside inference p50 (ms)": f"{outside[0]:.2f}",
            "missing cameras": ", ".join(self._cameras[camera] for camera in missing),
            "incompatible QoS": incompatible or "none",
            "pairs unverified": unverified or "none",
            "images received": counts.received,
            "images rejected": sum(rejected.values()),
            **{f"images rejected: {cause}": number for cause, number in rejected.items()},
            "images without partner": counts.unmatched,
            "images too late": counts.late,
            "time set back": counts.resets,
            "frames": counts.frames,
            "frames matched": self._matched,
            "frames dropped": dropped,
            "frames failed": self._failed,
            **{f"camera {name} (Hz)": f"{since[f'camera {name}'] / elapsed:.1f}" for name in self._cameras},
        }
        # A frame that takes long is not none.
        patience = 2 * timeout + 2e-3 * inference[1]
        level, text = self._judge(since, now - self._idle_since > patience, missing, incompatible, unverified)
        return DiagnosticStatus(
            level=level,
            message=text,
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )

    def _judge(
        self,
        since: Mapping[str, int],
        is_idle: bool,
        missing: Sequence[int],
        incompatible: str,
        unverified: str,
    ) -> tuple[bytes, str]:
        idle = f"no {self._results} for {time.monotonic() - self._idle_since:.1f} s"
        if is_idle and since["failed"]:
            return DiagnosticStatus.ERROR, f"{idle}: {self._last_error}"
        if incompatible:
            return DiagnosticStatus.ERROR if is_idle else DiagnosticStatus.WARN, incompatible
        if is_idle and not since["images"]:
            return DiagnosticStatus.ERROR, f"{idle}: no image comes on {', '.join(self._topics)}"
        if is_idle:
            return (
                DiagnosticStatus.ERROR,
                f"{idle}: images come, but none within sync_slop of another camera's",
            )
        if missing:
            return DiagnosticStatus.WARN, f"missing: {', '.join(self._cameras[camera] for camera in missing)}"
        if since["failed"]:
            return DiagnosticStatus.WARN, f"a frame was lost: {self._last_error}"
        if since["rejected"]:
            return DiagnosticStatus.WARN, f"{since['rejected']} images rejected"
        if unverified:
            return DiagnosticStatus.WARN, f"pairs unverified: {unverified}"
        if not self._matched:
            return DiagnosticStatus.WARN, f"no {self._results} yet of {', '.join(self._topics)}"
        return DiagnosticStatus.OK, "ok"

    def _totals(self, rejected: int) -> dict[str, int]:
        cameras = zip(self._cameras, self._images, strict=True)
        images = {f"camera {name}": number for name, number in cameras}
        return {
            **images,
            "images": sum(self._images),
            "matched": self._matched,
            "failed": self._failed,
            "rejected": rejected,
        }
