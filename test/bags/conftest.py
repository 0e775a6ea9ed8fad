"""Bags that several tests read, and the command, as a user on a machine without ROS runs it."""

import os
import subprocess
import sys

import pytest

from lightglue_ros.cli import main

# Small, so that a frame takes 10 ms; chunks are of 16 frames.
PARAMETERS = """
/**:
  ros__parameters:
    pairs: ["left:right", "left@-1:left"]
    image_width: 128
    image_height: 96
    max_keypoints: 48
    num_threads: 1
    provider: cpu
    publish_tracks: true
"""


@pytest.fixture(scope="session")
def parameters(tmp_path_factory):
    file = tmp_path_factory.mktemp("parameters") / "rig.yaml"
    file.write_text(PARAMETERS)
    return file


@pytest.fixture(scope="session")
def command(parameters, tmp_path_factory, model_folder):
    """The command line and the environment of `lightglue_ros bag`, where ROS cannot be imported."""
    folder = tmp_path_factory.mktemp("no_ros")
    for package in ("rclpy", "std_msgs", "sensor_msgs", "builtin_interfaces"):
        (folder / package).mkdir()
        (folder / package / "__init__.py").write_text(f"raise ImportError('no {package} here')")

    def make(*arguments):
        words = [sys.executable, "-m", "lightglue_ros", "bag", *arguments, "--params-file", parameters]
        path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
        return [str(word) for word in words], {**os.environ, "PYTHONPATH": path}

    return make


@pytest.fixture(scope="session")
def match_bag(command):
    """Runs the command."""

    def run(*arguments):
        words, environment = command(*arguments)
        return subprocess.run(words, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def match_here(parameters, capsys):
    """Runs the command in this process; returns its status, stdout and stderr."""

    def run(*arguments):
        words = ["bag", *arguments, "--params-file", parameters]
        status = main([str(word) for word in words])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.fixture(scope="session")
def recorded(motorcycle, tmp_path_factory):
    """The same drive in each storage, and with compressed images."""
    pytest.importorskip("rosbags", reason="no rosbags here (pip install rosbags)")
    from recordings import jpeg_message, stereo, write_bag

    folder = tmp_path_factory.mktemp("recorded")
    bags = {
        storage: write_bag(folder / storage, storage, stereo(motorcycle)) for storage in ("sqlite3", "mcap")
    }
    jpegs = stereo(motorcycle, jpeg_message, suffix="/compressed")
    return bags | {"compressed": write_bag(folder / "compressed", "mcap", jpegs)}


@pytest.fixture(scope="session")
def matched(recorded, match_bag, tmp_path_factory):
    """The bags with matches of all the recorded ones."""
    folder = tmp_path_factory.mktemp("matched")
    raw = match_bag(recorded["sqlite3"], recorded["mcap"], "-o", folder / "raw")
    compressed = match_bag(
        recorded["compressed"], "-o", folder / "compressed", "-p", "image_transport:=compressed"
    )
    for done, count in ((raw, 2), (compressed, 1)):
        assert done.returncode == 0, done.stderr
        assert f"{count * 64} frames in" in done.stderr
        header, *rows = (line.split() for line in done.stdout.splitlines())
        assert header[:4] == ["bag", "frames", "pairs", "missing"]
        assert [row[1:4] for row in rows] == [["64", "128", "1"]] * count
    assert sorted(path.name for path in (folder / "raw").iterdir()) == ["mcap", "sqlite3"]
    return {
        "sqlite3": folder / "raw" / "sqlite3",
        "mcap": folder / "raw" / "mcap",
        "compressed": folder / "compressed",
    }
