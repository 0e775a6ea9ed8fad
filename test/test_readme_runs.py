"""What README.md, CONTRIBUTING.md and docs/ print runs as printed; not what takes robots, networks, minutes.

`nodes/test_readme_nodes.py` runs nodes and launch files; `printed.py` says who runs the rest, and why nobody
runs what is left. A line of which it says neither fails here.
"""

import re
import shlex

import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here")
pytest.importorskip("torch", reason="no PyTorch here, which the models are listed with")

import itertools

from printed import (
    AMONG_WORDS,
    BLOCKS,
    COMING_FROM,
    COMMANDS,
    DRY,
    FIRST_PORT,
    MAKEFILE,
    PROGRAM,
    ROOT,
    RUN,
    SECTIONS,
    SHELL,
    WHY_NOT,
    lines_of,
    lines_run_by,
    programs_run_by,
    run_by,
    why_not,
    without_comment,
)
from reader import run

from lightglue_ros.core import MatchPipeline
from lightglue_ros.export import registry

LINES = [
    (block, line) for block in [*BLOCKS, *AMONG_WORDS] if block.kind == SHELL for line in lines_of(block)
]
WRITES = ("--draw", "--json", "-o")  # options that name what a command writes
# The least that some commands say of their result.
SAYS = {
    "match": r"\d{3} matches",
    "bench": r"\d Hz",
    "demo": r"same row +9\d",
    "bag": r"frames",
    "--list": "xfeat",
}
IN_ROOT = ("make", ".")


def test_each_line_is_run_or_it_is_said_why_not():
    for block, line in LINES:
        assert run_by(block, line) or why_not(line), f"{block}: nobody runs: {line}"


def test_no_pattern_is_left_over_from_former_lines():
    lines = [without_comment(line) for _, line in LINES]
    for pattern in (*RUN, *WHY_NOT):
        assert any(re.search(pattern, line) for line in lines), pattern
    titles = {(block.path.name, block.kind, block.section) for block in BLOCKS}
    assert set(SECTIONS) <= titles


@pytest.mark.parametrize(
    "line",
    [
        "lightglue_ros tea",
        "lightglue_ros match mine.png yours.png",
        "tea --hot",
        "ros2 run lightglue_ros tea",
    ],
)
def test_a_new_line_that_nobody_runs_is_noticed(line):
    block = BLOCKS[0]
    assert not run_by(block, line)
    assert not why_not(line)


def test_what_others_run_is_run_by_them():
    """Those tests take their lines from here, and make runs its own before the tests begin."""
    for line in lines_run_by(MAKEFILE):
        command = re.sub(r"ros2 run lightglue_ros", "lightglue_ros", line)
        assert f"$(IN_ENV) {command}\n" in (ROOT / "Makefile").read_text()
    assert "lines_run_by(FIRST_PORT)" in (ROOT / FIRST_PORT).read_text()
    assert "programs_run_by(FIRST_PORT)" in (ROOT / FIRST_PORT).read_text()
    assert "programs_run_by(COMING_FROM)" in (ROOT / COMING_FROM).read_text()


@pytest.mark.parametrize("line", lines_run_by(COMMANDS))
def test_a_command_runs_as_printed(line, model_folder, readers_folder, readers_environment):
    words = shlex.split(line)
    said = run(line, ROOT if words[0] in IN_ROOT else readers_folder, readers_environment)
    for option, name in itertools.pairwise(words):
        assert option not in WRITES or (readers_folder / name).exists(), name
    for word in words[1:3]:
        assert re.search(SAYS.get(word, ""), said), said


@pytest.mark.parametrize("line", lines_run_by(DRY))
def test_make_knows_what_it_would_do(line, readers_environment):
    assert run(f"{line} -n", ROOT, readers_environment)


def test_the_readmes_python_runs(model_folder, motorcycle, readers_folder, monkeypatch):
    monkeypatch.chdir(readers_folder)
    program, another = [text for text in programs_run_by(PROGRAM) if "MODELS" not in text]
    values = {}
    exec(program, values)
    exec(another, values)
    (expected,) = MatchPipeline(model_folder).match(motorcycle, [(0, 1)])
    assert values["pair"].keypoints0.tolist() == expected.keypoints0.tolist()


def test_the_example_of_an_extractor_makes_a_model(monkeypatch):
    (program,) = [text for text in programs_run_by(PROGRAM) if "MODELS" in text]
    monkeypatch.setattr(registry, "MODELS", {})
    exec(program, {**vars(registry), "Mine": registry.XFeat})
    spec = registry.find_spec("mine")
    assert (spec.name, spec.matcher.input_dim, spec.divisor) == ("mine", 128, 8)
