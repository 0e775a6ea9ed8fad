"""The command line, run as a user runs it."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from lightglue_ros.cli import demo
from lightglue_ros.core import PairMatches
from lightglue_ros.core.image_files import write_image


def run(*arguments, **environment):
    command = [sys.executable, "-m", "lightglue_ros", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60.0, check=False, env={**os.environ, **environment}
    )


@pytest.fixture(scope="module")
def left(motorcycle, tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "left.png"
    write_image(path, motorcycle[0])
    return path


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["match", "{left}", "no_such.png"], "no image file no_such.png"),
        (["export", "xfeat", "-o", "{left}"], "{left}"),
        (["export", "sift"], "no model 'sift' to export; allowed: xfeat"),
        (["export", "aliked-t16"], "a LightGlue for the 64 channels of aliked-t16 must be given"),
    ],
)
def test_errors_are_one_line_and_status_1(left, arguments, says):
    done = run(*(argument.format(left=left) for argument in arguments))
    assert done.returncode == 1
    assert says.format(left=left) in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_usage_errors_are_status_2():
    sizes = [["match", "a", "b", "--image-size", size] for size in ("640", "0x480", "100000x100000")]
    for arguments in ([], ["nonsense"], ["bench", "--frames", "0"], *sizes):
        assert run(*arguments).returncode == 2


@pytest.mark.model
def test_export_lists_the_models_with_their_licences():
    done = run("export", "--list")
    assert done.returncode == 0, done.stderr
    header, *rows = (re.split(" {2,}", line) for line in done.stdout.splitlines())
    assert header == ["model", "extractor", "descriptor", "channels", "divisor", "matcher weights", "licence"]
    table = {row[0]: row[1:] for row in rows}
    assert table["disk"] == ["disk", "128", "3", "16", "disk_lightglue.pth", "Apache-2.0"]
    assert table["aliked-t16"][-2:] == ["not published", "BSD-3-Clause (ALIKED)"]
    assert table["superpoint"][-1] == "non-commercial research (SuperPoint), Apache-2.0 (LightGlue)"
    assert {"xfeat", "disk", "aliked", "aliked-n16rot", "aliked-n32", "superpoint"} < set(table)


def without(package, folder):
    """An environment in which the import of a package fails as if it were not installed."""
    (folder / package).mkdir()
    (folder / package / "__init__.py").write_text(f"raise ModuleNotFoundError('absent', name='{package}')")
    return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


def test_help_names_every_command_and_needs_no_other_package(tmp_path):
    for package in ("numpy", "cv2", "onnxruntime", "torch", "rclpy"):
        environment = without(package, tmp_path)
    said = run("--help", **environment).stdout
    named = re.findall(r"^    ([a-z]+) ", said, re.MULTILINE)
    assert named == ["export", "match", "bag", "bench", "demo", "matcher", "viewer", "player"]


@pytest.mark.parametrize(
    ("absent", "command", "says"),
    [
        ("torch", ["export", "xfeat"], "needs the Python package 'torch'"),
        ("torch", ["export", "--list"], "needs the Python package 'torch'"),
        ("torch", ["match", "{left}", "{left}", "--model", "disk"], "fix: lightglue_ros export disk --split"),
        ("h5py", ["match", "{left}", "{left}", "--h5", "h5"], "pip install h5py"),
        ("onnxruntime", ["match", "{left}", "{left}"], "fix: for CPUs: pip install onnxruntime; for CUDA 13"),
        ("rclpy", ["matcher"], "matcher needs ROS 2"),
        ("rclpy", ["demo"], "demo needs ROS 2"),
    ],
)
def test_what_is_not_installed_is_named_when_it_is_needed(absent, command, says, left, tmp_path):
    environment = without(absent, tmp_path)
    if absent == "torch":
        environment["LIGHTGLUE_ROS_HOME"] = str(tmp_path / "store")
    done = run(*(word.format(left=left) for word in command), **environment)
    assert done.returncode == 1
    assert says in done.stderr
    assert done.stderr.count("fix: ") == 1
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("shift", "is_rectified", "status"), [(0.0, True, 0), (5.0, True, 1), (5.0, False, 0), (None, False, 1)]
)
def test_the_demo_judges_by_rows_or_by_one_geometry(shift, is_rectified, status, capsys):
    """Points of a scene, as two cameras see them; without a shift the second image has random points."""
    random = np.random.default_rng(0)
    scene = np.column_stack([random.uniform(-2, 2, (200, 2)), random.uniform(3, 10, 200)])
    left, right = (320 + 500 * (scene - [x, 0, 0])[:, :2] / scene[:, 2:] for x in (0.0, 0.3))
    right = random.uniform(0, 640, (200, 2)) if shift is None else right + np.array([0.0, shift])
    numbers = np.arange(200, dtype=np.int32)
    scores = np.ones(200, np.float32)
    pair = PairMatches(left.astype(np.float32), right.astype(np.float32), scores, numbers, numbers, 6)
    assert demo._judge(pair, is_rectified) == status
    assert "of 200 matches" in capsys.readouterr().out
    assert demo.epipolar_share(PairMatches.empty()) == 0.0
