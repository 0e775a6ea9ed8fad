"""State of a matcher for `/diagnostics`: rates, times, counts, and a judgement.

ERROR: no results for two camera timeouts, because no image comes, no images are in sync, or every frame
fails.
WARN: no results yet, a camera is missing, a publisher's QoS is incompatible, pairs could not be verified, or
images were rejected or a frame failed since the last report. Frames dropped because the cameras are faster
than inference are counted and are no reason to warn.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from lightglue_ros.rig.frame_assembler import FrameAssembler
from lightglue_ros.rosdata.parameters import MatcherParameters

# Percentiles are those of the last frames, this many.
_TIMED_FRAMES = 100


class MatcherStatus:
    """Counts what happens, from the executor's and the inference thread.

    Args:
        values: of the matcher's parameters.
    """

    def __init__(self, values: MatcherParameters) -> None:
        self._cameras = values.cameras
        self._topics = values.input_topics
        self._results = values.results
        self._times: deque[tuple[float, float, float]] = deque(maxlen=_TIMED_FRAMES)
        self._images = [0] * len(values.cameras)
        self._matched = self._failed = 0
        self._last_error = ""
        self._rejections: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._idle_since = self._reported_at = time.monotonic()
        self._before = self._totals()

    def count_image(self, camera: int) -> None:
        """Count an image that came."""
        self._images[camera] += 1

    def count_rejection(self, cause: str) -> int:
        """Count an image that cannot be used, from any thread; return how many there are by now."""
        with self._lock:
            self._rejections[cause] += 1
            return self._rejections.total()

    def count_match(self, inference: float, outside: float, age: float) -> None:
        """Count a published frame.

        Args:
            inference: seconds inside ONNX Runtime.
            outside: seconds outside of it.
            age: seconds since the images were taken.
        """
        self._times.append((inference, outside, age))
        self._matched += 1
        self._idle_since = time.monotonic()

    def count_failure(self, error: Exception) -> None:
        """Count a frame that was lost to an error."""
        self._failed += 1
        self._last_error = f"{type(error).__name__}: {error}"

    def report(
        self,
        about: Mapping[str, str],
        assembler: FrameAssembler[Any],
        dropped: int,
        incompatible: str,
        unverified: str,
    ) -> DiagnosticStatus:
        """Make the status; rates are those since the last report.

        Args:
            about: more values, to go first.
            assembler: of the frames.
            dropped: frames that were overtaken by newer ones.
            incompatible: publishers whose QoS the subscriptions cannot take, in words.
            unverified: reasons why pairs were not verified, in words.
        """
        now = time.monotonic()
        totals, counts, missing = self._totals(), assembler.counts, assembler.missing()
        with self._lock:
            rejections = dict(sorted(self._rejections.items()))
        elapsed = max(now - self._reported_at, 1e-3)
        since = {name: total - self._before[name] for name, total in totals.items()}
        self._before, self._reported_at = totals, now
        # A copy first, because the inference thread goes on adding.
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
            "images rejected": totals["rejected"],
            **{f"images rejected: {cause}": number for cause, number in rejections.items()},
            "images without partner": counts.unmatched,
            "images too late": counts.late,
            "time set back": counts.resets,
            "frames": counts.frames,
            "frames matched": self._matched,
            "frames dropped": dropped,
            "frames failed": self._failed,
            **{f"camera {name} (Hz)": f"{since[f'camera {name}'] / elapsed:.1f}" for name in self._cameras},
        }
        # Allow for slow inference: a frame that is still being computed is not "no frames".
        patience = 2 * assembler.timeout + 2e-3 * inference[1]
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

    def _totals(self) -> dict[str, int]:
        cameras = zip(self._cameras, self._images, strict=True)
        images = {f"camera {name}": number for name, number in cameras}
        return {
            **images,
            "images": sum(self._images),
            "matched": self._matched,
            "failed": self._failed,
            "rejected": self._rejections.total(),
        }
