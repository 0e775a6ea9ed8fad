import sys

import pytest

from lightglue_ros.cli import progress
from lightglue_ros.cli.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets."""
    seconds = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: seconds[0])
    return seconds


def test_a_terminal_has_a_bar_with_rate_and_time_left(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    frames = Progress("frames", 4000)
    clock[0] += 10.0
    frames.add(1000)
    assert capsys.readouterr().err.endswith(
        "[#####               ] 1000 of 4000 frames, 100.0 a second, 30 s left"
    )
    frames.end()
    assert capsys.readouterr().err.endswith("1000 frames in 10.0 s, 100.0 a second\n")


def test_a_log_has_a_line_a_minute_where_it_is_asked_for(clock, capsys):
    for logs in (False, True):
        frames = Progress("frames", 1000, logs=logs)
        for _ in range(9):
            clock[0] += 10.0
            frames.add(1)
        lines = capsys.readouterr().err.splitlines()
        assert [line.split("] ")[1] for line in lines] == [
            "7 of 1000 frames, 0.1 a second, 2.8 h left"
        ] * logs
