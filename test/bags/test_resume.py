"""Runs of `lightglue_ros bag` that are ended at any moment, and workers that die."""

import contextlib
import itertools
import os
import pickle
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("rosbags", reason="no rosbags here (pip install rosbags)")
from recordings import DEADLINE, DELAY, FRAMES, jpeg_message, pictures, read_bag, stamp_of, write_bag

from lightglue_ros.bags.chunks import ChunkMatcher, ChunkSource
from lightglue_ros.bags.engines import ProcessEngine, UnexpectedError
from lightglue_ros.bags.frame_index import build_frame_index
from lightglue_ros.bags.matched_bag import make_tracks
from lightglue_ros.core import ConfigError
from lightglue_ros.rig.extracted_references import ExtractedReferences
from lightglue_ros.rig.tracks import Tracker
from lightglue_ros.rosdata.parameters import MatcherParameters


def wait_for(process, condition, what):
    """Wait until a condition holds."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert process.poll() is None, f"it ended before {what}"
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.002)


def descendants(process):
    """Process ids and command lines below a process."""
    found = {}
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{process}/task").iterdir():
            for child in (task / "children").read_text().split():
                found[int(child)] = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
                found |= descendants(int(child))
    return found


def test_ended_at_any_moment_and_resumed_nothing_is_lost_or_twice(
    matched, recorded, command, match_bag, match_here, tmp_path
):
    output, part = tmp_path / "out", tmp_path / "out.part"
    arguments = (recorded["mcap"], "-o", output)
    count = random.randrange(2, 4)
    moments = {
        "it has begun": (signal.SIGKILL, lambda: (part / "key").exists()),
        "a chunk": (signal.SIGINT, lambda: any(part.glob("frames-*[0-9]"))),
        "some chunks": (signal.SIGKILL, lambda: len(list(part.glob("frames-*[0-9]"))) >= count),
        "the output": (signal.SIGKILL, lambda: any(part.glob("tmp*"))),
    }
    for number, (what, (ending, has_come)) in enumerate(moments.items()):
        words, environment = command(*arguments, "--jobs", 1 + number % 2)
        with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True) as process:
            wait_for(process, has_come, what)
            if what == "some chunks":
                status, _, said = match_here(*arguments)
                assert (status, f"another run is writing {output}" in said) == (1, True)
            workers = descendants(process.pid)
            process.send_signal(ending)
            _, said = process.communicate(timeout=DEADLINE)
        # A quick machine may be done before the signal arrives.
        is_whole = output.exists()
        if is_whole:
            break
        if ending == signal.SIGINT:
            assert process.returncode == 130
            assert said.splitlines()[-1] == "interrupted; the same command goes on from here"
            status, _, said = match_here(*arguments, "-p", "match_threshold:=0.5")
            assert (status, "was begun for another bag or with other settings" in said) == (1, True)
        deadline = time.monotonic() + DEADLINE
        while any(Path(f"/proc/{worker}").exists() for worker in workers):
            assert time.monotonic() < deadline, "its workers live on"
    done = match_bag(*arguments)
    assert done.returncode == 0, done.stderr
    goes_on = f"goes on, {FRAMES} of {FRAMES} frames are done already"
    assert ("is done already" if is_whole else goes_on) in done.stderr
    assert read_bag(output) == read_bag(matched["mcap"])
    assert not part.exists()


@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_two_workers_of_which_one_is_killed_do_the_same(engine, matched, recorded, command, tmp_path):
    if engine == "ray":
        pytest.importorskip("ray", reason="no Ray here (pip install ray)")
    name = {"processes": "spawn_main", "ray": "ray::call"}[engine]
    output, part = tmp_path / "out", tmp_path / "out.part"
    words, environment = command(recorded["sqlite3"], "-o", output, "--jobs", "2", "--engine", engine)
    with (
        (tmp_path / "errors").open("w+") as errors,
        subprocess.Popen(words, env=environment, stderr=errors, stdout=subprocess.DEVNULL) as process,
    ):
        workers = []

        def two_work():
            workers[:] = [child for child, line in descendants(process.pid).items() if name in line]
            return len(workers) == 2 and any(part.glob("frames-*[0-9]"))

        wait_for(process, two_work, "two workers")
        os.kill(workers[0], signal.SIGKILL)
        process.wait(timeout=DEADLINE)
        errors.seek(0)
        assert process.returncode == 0, errors.read()
    assert read_bag(output) == read_bag(matched["sqlite3"])


def test_a_task_that_fails_or_kills_its_process_fails_alone():
    engine = ProcessEngine(2)
    with contextlib.closing(engine):
        tasks = ((int, "seven"), (os._exit, 1), (int, "7"))
        unexpected, deadly, good = (engine.submit(*task) for task in tasks)
        assert good.result(DEADLINE) == 7
        with pytest.raises(UnexpectedError, match=r"invalid literal .* 'seven'") as caught:
            unexpected.result(DEADLINE)
        assert "Traceback" in caught.value.traceback
        with pytest.raises(ConfigError, match="3 processes died one after the other at the same task"):
            deadly.result(DEADLINE)


def test_a_frame_is_the_same_wherever_its_chunk_begins(motorcycle, model_folder, tmp_path):
    """With a camera that drops out, broken images, a slow camera, and time that is set back."""
    changes = {
        "cameras": ["left", "right", "slow"],
        "image_topics": ["left", "right", "slow"],
        "image_transport": "compressed",
        "pairs": ["left:right", "left@-3:left", "slow@-2:slow"],
        "verification": "fundamental",
        "model": str(model_folder),
        "num_threads": 1,
        "max_keypoints": 32,
        "image_width": 96,
        "image_height": 64,
        "camera_timeout": 0.2,
        "publish_tracks": True,
    }
    settings = MatcherParameters(**changes)
    bag = write_bag(tmp_path / "bag", "mcap", eventful(motorcycle))
    index = build_frame_index((bag,), tmp_path, settings)
    frames = [frame for _, frame in index.frames]
    assert {frame.epochs for frame in frames} == {(0, 0, 0), (1, 1, 1)}
    assert any(frame.between for frame in frames)
    assert any(frame.missing for frame in frames)
    file = tmp_path / "index"
    file.write_bytes(pickle.dumps(index))
    source = ChunkSource((bag,), tmp_path, file, settings, "0")
    matcher = ChunkMatcher(source, settings.load(), ExtractedReferences())
    all_at_once = matcher.match(range(len(frames)))
    whole, counts = all_at_once.messages, all_at_once.counts
    assert all_at_once.tally.count("rejected") == 5
    assert len(whole) == len(frames) - 2
    assert 0 < counts["missing"] < counts["pairs"]
    chunks = [range(first, min(first + 11, len(frames))) for first in range(0, len(frames), 11)]
    matched = [matcher.match(chunk) for chunk in reversed(chunks)]
    assert list(itertools.chain(*(chunk.messages for chunk in reversed(matched)))) == whole
    assert sum((chunk.counts for chunk in matched), Counter()) == counts
    tracks = tracks_of([all_at_once], settings.cameras)
    assert [time for time, _ in tracks] == [time for time, _ in whole]
    assert tracks_of(reversed(matched), settings.cameras) == tracks


def tracks_of(chunks, cameras):
    """(time, bytes) of the tracks of chunks in their order."""
    tracker = Tracker()
    return [one for chunk in chunks for one in make_tracks(tracker, chunk, cameras)]


def eventful(motorcycle):
    """Compressed images of two cameras and one that has every fourth, in two passes over the same stamps."""
    for number in range(60):
        stamp = stamp_of(number % 40)
        left, right = pictures(motorcycle, number)
        for camera, picture in (("left", left), ("right", right), ("slow", right)):
            message = jpeg_message(picture, camera, stamp)
            is_lost = (camera == "right" and 18 <= number < 27) or (camera == "slow" and number % 4)
            if number in (14, 50) or (camera, number) == ("left", 33):
                # The header is whole, so that only decoding fails.
                message.data = message.data[: len(message.data) // 3]
            if not is_lost:
                yield f"/{camera}/compressed", message, stamp_of(number) + DELAY
