"""The tables of README.md and docs/ say what the code says."""

import re
import shutil
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here")
pytest.importorskip("torch", reason="no PyTorch here, which the list of models needs")

import document

ROOT = Path(__file__).parents[1]


@pytest.fixture
def copied(tmp_path):
    """A copy of what the tables are made from and stand in."""
    shutil.copy(ROOT / "README.md", tmp_path)
    for folder in ("docs", "msg", "config", "bench/results"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    return tmp_path


def test_every_table_is_that_of_the_code(capsys):
    assert document.main(["--check"]) == 0, capsys.readouterr()


def test_stale_tables_are_named_and_mended(copied, capsys):
    texts = {
        "README.md": "| `match_threshold` | 0.1 |",
        "docs/command_line.md": "`--draw PNG`",
        "docs/messages.md": "| `scores` | float32[] |",
        "docs/parameters.md": "| `rate` | 0.0 |",
        "docs/topics.md": "lightglue_ros/msg/Matches",
    }
    whole = {file: (copied / file).read_text() for file in texts}
    for file, text in texts.items():
        before, _, after = whole[file].rpartition(text)
        assert before
        (copied / file).write_text(f"{before}of yesterday{after}")
    assert document.main(["--check", "--root", str(copied)]) == 1
    said, to_mend = capsys.readouterr()
    assert said.splitlines() == [f"stale: {file}" for file in texts]
    assert "python tools/document.py" in to_mend
    assert document.main(["--root", str(copied)]) == 0
    assert {file: (copied / file).read_text() for file in texts} == whole


def test_a_new_field_of_a_message_makes_its_table_stale(copied, capsys):
    with (copied / "msg" / "Matches.msg").open("a") as file:
        file.write("\n# How many there are.\nuint32 count\n")
    assert document.main(["--check", "--root", str(copied)]) == 1
    assert capsys.readouterr().out == "stale: docs/messages.md\n"


@pytest.mark.parametrize(
    ("marker", "says"),
    [
        ("<!-- generated: robots -->\n<!-- end -->", "there is no table 'robots'; allowed: models, message"),
        ("<!-- generated: models -->", "a table has no end"),
    ],
)
def test_a_marker_that_cannot_be_filled_is_one_line(copied, capsys, marker, says):
    (copied / "docs" / "more.md").write_text(marker)
    assert document.main(["--check", "--root", str(copied)]) == 1
    assert says in capsys.readouterr().err


def test_links_between_the_documents_lead_somewhere():
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
            assert (path.parent / link).exists(), (path, link)
