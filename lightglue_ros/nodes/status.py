"""State of a matcher for `/diagnostics`: rates, times, counts, and a judgement.

ERROR: no results for two camera timeouts, because no image comes, no images are in sync, or every frame
fails.
WARN: no results yet, an input has a problem (a publisher's QoS is incompatible, images are lost on the way,
simulated time stands still), the CPU runs the model because the GPU cannot, the calibration of a stereo pair
does not hold, a camera is missing, pairs could not be verified, or images were rejected or a frame failed
since the last report. Frames dropped because the cameras are faster than inference are counted and are no
reason to warn.

While nobody subscribes to a result and the node is `lazy`, the level is OK: a frame that was not matched for
that reason counts as a result. Missing cameras and other problems of the inputs are reported as ever.

All values are numbers where they can be, so that they can be plotted.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from lightglue_ros.errors import RejectedImageError
from lightglue_ros.nodes.watch import InputWatch
from lightglue_ros.rig.calibration_watch import RowErrors
from lightglue_ros.rig.frame import FrameResult
from lightglue_ros.rig.frame_assembler import FrameAssembler
from lightglue_ros.rosdata.parameters import MatcherParameters

# Begins the names of the values of a pair.
PAIR = "pair "
# Percentiles are those of the last frames, this many.
_TIMED_FRAMES = 100


class MatcherStatus:
    """Counts what happens, from any thread.

    Attributes:
        numbers: of keypoints, matches and inliers in the last frame; see `numbers_of`.
    """

    def __init__(self, values: MatcherParameters, inputs: InputWatch) -> None:
        self._cameras = values.cameras
        self._results = values.results
        self._inputs = inputs
        self._times: deque[tuple[float, float, float]] = deque(maxlen=_TIMED_FRAMES)
        # The thread that matches replaces it as a whole.
        self.numbers: dict[str, int] = {}
        self._last_error = ""
        self._rejections: dict[int, tuple[float, str]] = {}
        self._counts, self._before = Counter[str](), Counter[str]()
        self._lock = threading.Lock()
        self._waits_since = self._reported_at = time.monotonic()

    def count_image(self, camera: int) -> None:
        """Count an image that came."""
        self._count("images", f"camera {self._cameras[camera]}")

    def count_rejection(self, camera: int, error: RejectedImageError) -> int:
        """Count an image that cannot be used; return how many there are by now."""
        self._rejections[camera] = (time.monotonic(), error.what)
        return self._count("images rejected", f"images rejected: {error.cause}")

    def unusable(self, seconds: float) -> dict[int, str]:
        """Return the cameras without a usable image in the last `seconds`, and why.

        The newest message of any camera is taken as the present, so that a pause of all changes nothing.
        """
        now = self._inputs.newest
        causes = {
            camera: f"its images are rejected: {text}"
            for camera, (at, text) in list(self._rejections.items())
            if now - at < seconds
        }
        for camera in range(len(self._cameras)):
            if self._inputs.is_silent(camera, seconds, now):
                causes[camera] = f"no image comes on {self._inputs.describe([camera])}"
        return causes

    def count_match(self, result: FrameResult[Any], between: list[int], outside: float, age: float) -> None:
        """Count a published frame.

        Args:
            between: cameras that are between two images, and keep the numbers of their last one.
            outside: seconds outside of ONNX Runtime.
            age: seconds since the frame was taken.
        """
        self._times.append((result.inference, outside, age))
        self.numbers = numbers_of(result, between, self.numbers)
        self._count("frames matched")
        self._waits_since = time.monotonic()

    def count_unwanted(self) -> None:
        """Count a frame that was not matched because nobody subscribes to a result."""
        self._count("frames without subscriber")
        self._waits_since = time.monotonic()

    def count_failure(self, error: Exception) -> None:
        """Count a frame that was lost to an error."""
        self._last_error = f"{type(error).__name__}: {error}"
        self._count("frames failed")

    def _count(self, *names: str) -> int:
        """Count one more of each name, from any thread; return how many of the first there are by now."""
        with self._lock:
            self._counts.update(names)
            return self._counts[names[0]]

    @property
    def matched(self) -> int:
        """Number of published frames."""
        return self._counts["frames matched"]

    @property
    def unwanted(self) -> int:
        """Number of frames that were not matched because nobody subscribes to a result."""
        return self._counts["frames without subscriber"]

    def milliseconds(self, most: int = _TIMED_FRAMES) -> np.ndarray:
        """Return (inference, outside of it, age) of the last frames in ms, float64 [N, 3], N at least 1."""
        # A copy first, because the thread that matches goes on adding.
        return 1e3 * np.array(list(self._times)[-most:] or [(0.0, 0.0, 0.0)])

    def report(
        self,
        about: Mapping[str, str],
        assembler: FrameAssembler[Any],
        dropped: int,
        causes: Mapping[int, str],
        problems: Mapping[str, str],
        unverified: str,
        unheard: str,
        row_errors: Mapping[str, RowErrors],
    ) -> DiagnosticStatus:
        """Make the status; rates are those since the last report.

        Args:
            about: more values, to go first.
            dropped: number of frames that were overtaken by newer ones.
            causes: missing cameras, and why they are missing.
            problems: of the inputs, in words, by the name of their value; empty where there is none.
            unverified: reasons why pairs were not verified, in words.
            unheard: topics of the results if nobody subscribes to them and nothing is matched; else empty.
            row_errors: of each stereo pair in the last minute.
        """
        now = time.monotonic()
        with self._lock:
            counts = self._counts.copy()
        elapsed = max(now - self._reported_at, 1e-3)
        since = counts - self._before
        self._before, self._reported_at = counts, now
        assembled = assembler.counts
        clocks = assembler.out_of_sync()
        missing = "; ".join(f"{self._cameras[camera]} ({cause})" for camera, cause in causes.items())
        times = self.milliseconds()
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
            "missing cameras": ", ".join(self._cameras[camera] for camera in causes),
            **{name: text or "none" for name, text in problems.items()},
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
            "frames without subscriber": counts["frames without subscriber"],
            **{f"camera {name} (Hz)": f"{since[f'camera {name}'] / elapsed:.1f}" for name in self._cameras},
            **{
                f"camera {it} out of sync (s)": f"{clocks.get(n, 0.0):.3f}"
                for n, it in enumerate(self._cameras)
            },
            **self.numbers,
            **{
                f"{PAIR}{name} row error p{percent} (px)": f"{errors.percentile(percent):.2f}"
                for name, errors in row_errors.items()
                for percent in (50, 95)
            },
        }
        # Allow for slow inference: a frame that is still being computed is not "no frames".
        patience = 2 * assembler.timeout + 2e-3 * inference[1]
        level, text = self._judge(since, patience, missing, problems, unverified, unheard)
        entries = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        return DiagnosticStatus(level=level, message=text, values=entries)

    def _judge(
        self,
        since: Counter[str],
        patience: float,
        missing: str,
        problems: Mapping[str, str],
        unverified: str,
        unheard: str,
    ) -> tuple[bytes, str]:
        seconds = time.monotonic() - self._waits_since
        is_overdue = seconds > patience
        rejected, last = since["images rejected"], max([*self._rejections.values()], default=(0.0, ""))[1]
        causes = (
            (since["frames failed"], f"a frame was lost: {self._last_error}"),
            (is_overdue and not since["images"], f"no image comes on {self._inputs.describe()}"),
            (missing, f"missing: {missing}"),
            (rejected, f"{rejected} images rejected: {last}"),
            (is_overdue, "images come, but none of them completes a pair"),
            (unverified, f"pairs unverified: {unverified}"),
            (not self.matched and not unheard, f"no {self._results} yet of {self._inputs.describe()}"),
        )
        cause = next((text for is_true, text in causes if is_true), "")
        text = "; ".join(filter(None, [*problems.values(), cause]))
        if is_overdue:
            return DiagnosticStatus.ERROR, f"no {self._results} for {seconds:.1f} s: {text}"
        if text:
            return DiagnosticStatus.WARN, text
        return DiagnosticStatus.OK, f"idle: nobody subscribes to {unheard}" if unheard else "ok"


def keypoints_of(camera: str) -> str:
    """Return the name of the value with a camera's number of keypoints."""
    return f"camera {camera} keypoints"


def numbers_of(result: FrameResult[Any], between: list[int], last: Mapping[str, int]) -> dict[str, int]:
    """Return the numbers of keypoints, matches and inliers of a frame, by the names of their values.

    A camera between two images, and its pairs, keep their `last` numbers. Missing ones have 0.
    """
    rig = result.settings.rig
    numbers = {}
    for camera, features in enumerate(result.features):
        count = 0 if features is None else np.count_nonzero(features.mask)
        name = keypoints_of(rig.cameras[camera])
        numbers[name] = last.get(name, 0) if camera in between else int(count)
    for views, pair in zip(rig.pairs, result.pairs, strict=True):
        found = {"matches": len(pair.matches)}
        if result.settings.geometry != "none":
            inliers = None if pair.verification is None else pair.verification.inliers
            found["inliers"] = 0 if inliers is None else int(np.count_nonzero(inliers))
        is_between = any(view.camera in between for view in views)
        for what, count in found.items():
            name = f"{PAIR}{rig.name_of(views)} {what}"
            numbers[name] = last.get(name, 0) if is_between else count
    return numbers
