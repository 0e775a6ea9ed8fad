"""The log line about cameras that are faster than the model."""

from types import SimpleNamespace

import pytest

from lightglue_ros.nodes import watch

HOW = "a frame takes 200 ms on cpu"


@pytest.fixture
def second(monkeypatch):
    """Lets a second of the steady clock pass with so many frames; the load watch looks; returns its lines."""
    lines, now, counts = [], [0.0], {"frames": 0, "unwanted": 0, "matched": 0, "dropped": 0}
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])
    load = watch.LoadWatch(SimpleNamespace(get_logger=lambda: SimpleNamespace(info=lines.append)))

    def pass_by(**more):
        now[0] += 1.0
        for name, count in more.items():
            counts[name] += count
        load.log_overload(**counts, how=HOW)
        return lines

    return pass_by


def busy(second, seconds):
    """Cameras at 10 Hz and a model at 4 Hz."""
    for _ in range(seconds):
        lines = second(frames=10, matched=4, dropped=6)
    return lines


def test_the_rates_are_those_of_the_seconds_in_which_somebody_subscribed(second):
    for _ in range(3):
        assert not busy(second, 4)
        assert not second(frames=10, unwanted=7, matched=1, dropped=2)
        for _ in range(4):
            assert not second(frames=10, unwanted=10)
    (line,) = busy(second, 10)
    assert line.startswith(f"the cameras send 10.0 frames per second, 4.0 are matched: {HOW}, and the others")


def test_the_rates_are_those_of_the_seconds_in_which_the_cameras_sent(second):
    for _ in range(3):
        assert not busy(second, 6)
        for _ in range(5):
            assert not second()
    (line,) = busy(second, 11)
    assert line.startswith("the cameras send 10.0 frames per second, 4.0 are matched")
