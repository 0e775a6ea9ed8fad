"""How far a command is: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time

_BAR = 20
# Seconds between two lines in a log.
_LOG_PERIOD = 60.0


class Progress:
    """A line on stderr: how far it is, at what rate and how long it takes, and at the end how long it took.

    Args:
        unit: what is counted, such as pairs.
        total: how many there are; may be set at any time.
        logs: whether a line is written now and then where stderr is no terminal.

    Attributes:
        done: how many are done.
        note: stands at the end of the line; may be set at any time.
    """

    def __init__(self, unit: str, total: int = 0, *, logs: bool = False) -> None:
        self.total = total
        self.done = 0
        self.note = ""
        self._unit = unit
        self._logs = logs
        self._start = self._logged = time.monotonic()

    def add(self, count: int) -> None:
        """Say that so many more are done."""
        self.done += count
        now = time.monotonic()
        if sys.stderr.isatty():
            self.clear()
            print(self._text(), end="", file=sys.stderr, flush=True)
        elif self._logs and now - self._logged > _LOG_PERIOD:
            self._logged = now
            print(self._text(), file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Make room for another line."""
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Say how long it took."""
        self.clear()
        seconds = self._seconds
        print(
            f"{self.done} {self._unit} in {seconds:.1f} s, {self.done / seconds:.1f} a second",
            file=sys.stderr,
        )

    @property
    def _seconds(self) -> float:
        return max(time.monotonic() - self._start, 1e-9)

    def _text(self) -> str:
        share = self.done / max(self.total, self.done, 1)
        rate = self.done / self._seconds
        left = (self.total - self.done) / rate if rate else 0.0
        bar = f"[{'#' * round(_BAR * share):<{_BAR}}]"
        counts = f"{self.done} of {self.total} {self._unit}{self.note}"
        return f"{bar} {counts}, {rate:.1f} a second, {_duration(left)} left"


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if hours < 2 else f"{hours:.1f} h"
