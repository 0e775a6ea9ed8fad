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
from collections.abc import Mapping
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from lightglue_ros.rig.frame_assembler import FrameAssembler
from lightglue_ros.rosdata.parameters import MatcherParameters

# Percentiles are those of the last frames, this many.
_TIMED_FRAMES = 100


class MatcherStatus:
    """Counts what happens, from the executor's and the inference thread."""

    def __init__(self, values: MatcherParameters) -> None:
        self._cameras = values.cameras
        self._topics = values.input_topics
        self._results = values.results
        self._times: deque[tuple[float, float, float]] = deque(maxlen=_TIMED_FRAMES)
        self._last_error = ""
        self._counts, self._before = Counter[str](), Counter[str]()
        self._lock = threading.Lock()
        self._idle_since = self._reported_at = time.monotonic()

    def count_image(self, camera: int) -> None:
        """Count an image that came."""
        self._count("images", f"camera {self._cameras[camera]}")

    def count_rejection(self, cause: str) -> int:
        """Count an image that cannot be used; return how many there are by now."""
        return self._count("images rejected", f"images rejected: {cause}")

    def count_match(self, inference: float, outside: float, age: float) -> None:
        """Count a published frame: seconds inside ONNX Runtime, outside of it, and since it was taken."""
        self._times.append((inference, outside, age))
        self._count("frames matched")
        self._idle_since = time.monotonic()

    def count_failure(self, error: Exception) -> None:
        """Count a frame that was lost to an error."""
        self._last_error = f"{type(error).__name__}: {error}"
        self._count("frames failed")

    def _count(self, *names: str) -> int:
        """Count one more of each name, from any thread; return how many of the first there are by now."""
        with self._lock:
            self._counts.update(names)
            return self._counts[names[0]]

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
            dropped: number of frames that were overtaken by newer ones.
            incompatible: publishers whose QoS the subscriptions cannot take, in words.
            unverified: reasons why pairs were not verified, in words.
        """
        now = time.monotonic()
        with self._lock:
            counts = self._counts.copy()
        elapsed = max(now - self._reported_at, 1e-3)
        since = counts - self._before
        self._before, self._reported_at = counts, now
        assembled = assembler.counts
        missing = ", ".join(self._cameras[camera] for camera in assembler.missing())
        # A copy first, because the inference thread goes on adding.
        times = 1e3 * np.array(list(self._times) or [(0.0, 0.0, 0.0)])
        inference, outside, age = (np.percentile(column, (50, 95)) for column in times.T)
        values = {
            **about,
            "rate (Hz)": f"{since['frames matched'] / elapsed:.1f}",
            "age p50 (ms)": f"{age[0]:.1f}",
            "age p95 (ms)": f"{age[1]:.1f}",
            "age beyond inference p99 (ms)": f"{np.percentile(times[:, 2] - times[:, 0], 99):.1f}",
            "inference p50 (ms)": f"{inference[0]:.2f}",
            "inference p95 (ms)": f"{inference[1]:.2f}",
            "outside inference p50 (ms)": f"{outside[0]:.2f}",
            "missing cameras": missing,
            "incompatible QoS": incompatible or "none",
            "pairs unverified": unverified or "none",
            "images received": assembled.received,
            "images rejected": counts["images rejected"],
            **{name: counts[name] for name in sorted(counts) if name.startswith("images rejected:")},
            "images without partner": assembled.unmatched,
            "images too late": assembled.late,
            "time set back": assembled.resets,
            "frames": assembled.frames,
            "frames matched": counts["frames matched"],
            "frames dropped": dropped,
            "frames failed": counts["frames failed"],
            **{f"camera {name} (Hz)": f"{since[f'camera {name}'] / elapsed:.1f}" for name in self._cameras},
        }
        # Allow for slow inference: a frame that is still being computed is not "no frames".
        patience = 2 * assembler.timeout + 2e-3 * inference[1]
        level, text = self._judge(since, patience, missing, incompatible, unverified)
        entries = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        return DiagnosticStatus(level=level, message=text, values=entries)

    def _judge(
        self, since: Counter[str], patience: float, missing: str, incompatible: str, unverified: str
    ) -> tuple[bytes, str]:
        seconds = time.monotonic() - self._idle_since
        idle = f"no {self._results} for {seconds:.1f} s"
        if seconds > patience:
            if since["frames failed"]:
                text = f"{idle}: {self._last_error}"
            elif incompatible:
                text = incompatible
            elif not since["images"]:
                text = f"{idle}: no image comes on {', '.join(self._topics)}"
            else:
                text = f"{idle}: images come, but none within sync_slop of another camera's"
            return DiagnosticStatus.ERROR, text
        warnings = (
            (incompatible, incompatible),
            (missing, f"missing: {missing}"),
            (since["frames failed"], f"a frame was lost: {self._last_error}"),
            (since["images rejected"], f"{since['images rejected']} images rejected"),
            (unverified, f"pairs unverified: {unverified}"),
            (not self._counts["frames matched"], f"no {self._results} yet of {', '.join(self._topics)}"),
        )
        for is_true, text in warnings:
            if is_true:
                return DiagnosticStatus.WARN, text
        return DiagnosticStatus.OK, "ok"
