"""Fixtures of the commands: running `match` in this process, and images for it."""

import pytest

from lightglue_ros.cli import main
from lightglue_ros.core.image_files import write_image


@pytest.fixture
def run(capfd):
    """Runs the command in this process; returns its status, stdout and stderr."""

    def match(*arguments):
        status = main(["match", *map(str, arguments), "--provider", "cpu"])
        return status, *capfd.readouterr()

    return match


@pytest.fixture
def match(run):
    """Runs the command, which succeeds; returns the lines of stdout."""

    def lines_of(*arguments):
        status, said, log = run(*arguments)
        assert status == 0, log
        return said.splitlines()

    return lines_of


@pytest.fixture
def error_of(run):
    """Runs the command, which fails without a result; returns its one line on stderr."""

    def line_of(*arguments):
        status, _, log = run(*arguments)
        assert status == 1
        assert len(log.strip().splitlines()) == 1, log
        return log

    return line_of


@pytest.fixture(scope="session")
def folder(motorcycle, tmp_path_factory):
    """Three images: the motorcycle's left and right, and its left in a smaller size."""
    path = tmp_path_factory.mktemp("images")
    left, right = motorcycle
    for name, image in (("a.png", left), ("b.png", right), ("c.png", left[:300, :400].copy())):
        write_image(path / name, image)
    return path
