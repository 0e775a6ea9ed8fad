"""Shows how far a run is: a bar on a terminal, a line per minute in a log."""

from __future__ import annotations

import sys
import threading
from io import TextIOBase

from tqdm import tqdm

_LOG_PERIOD = 60.0


class _LogLines(TextIOBase):
    """A file that makes lines of the bar's updates."""

    def write(self, text: str) -> int:
        if text.strip():
            print(text.strip(), file=sys.stderr, flush=True)
        return len(text)


class Progress:
    """Counts frames and prints lines, from any thread."""

    def __init__(self) -> None:
        in_log = {"file": _LogLines(), "mininterval": _LOG_PERIOD, "delay": _LOG_PERIOD}
        options = {"file": sys.stderr} if sys.stderr.isatty() else in_log
        self._bar = tqdm(total=0, unit=" frames", leave=False, **options)
        self._lock = threading.Lock()
        self._tracebacks: set[str] = set()

    def add(self, *, planned: int = 0, done: int = 0) -> None:
        """Count frames that are going to be matched, and matched frames."""
        with self._lock:
            self._bar.total += planned
            self._bar.update(done)

    def log(self, line: str) -> None:
        """Print a line on stderr, above the bar."""
        with self._lock:
            tqdm.write(line, file=sys.stderr)

    def log_traceback(self, text: str) -> None:
        """Print the traceback of an unexpected error, once."""
        if text not in self._tracebacks:
            self._tracebacks.add(text)
            self.log(text.rstrip())

    def log_rate(self) -> None:
        """Print the number of matched frames and their rate."""
        frames, seconds = self._bar.n, max(self._bar.format_dict["elapsed"], 1e-9)
        self.log(f"{frames} frames in {seconds:.1f} s, {frames / seconds:.1f} per second")

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()
