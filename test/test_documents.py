"""README.md, CONTRIBUTING.md and docs/ are true: their code runs; tables, names, quotes and links are right.

Blocks of Python run, and so do blocks of `lightglue_ros` commands, unless a comment above them says why not
(`<!--pytest.mark.skip(reason="...")-->`). Other commands (ros2, pip, make) are checked without running them.
"""

import itertools
import re
import shlex
import subprocess
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import yaml

from lightglue_ros import __version__, cli
from lightglue_ros.core.image_files import write_image
from lightglue_ros.rosdata.parameter_files import read_file
from lightglue_ros.rosdata.parameters import SPECS

extract_from_file = pytest.importorskip("pytest_codeblocks", reason="no pytest-codeblocks").extract_from_file

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [(page, block) for page in PAGES for block in extract_from_file(page)]
SHELL = [(page, block) for page, block in BLOCKS if block.syntax == "sh"]
# Store names on the pages; XFeat stands for all of them.
MODELS = ("xfeat", "aliked-k2048", "aliked-k2048-adaptive-depth0.9", "xfeat-k4096", "superpoint")
# Topics of the bags on the pages: first the left camera, then the right one.
BAGS = {
    "drive": ["/left/image_rect", "/right/image_rect", "/left/image/compressed", "/right/image/compressed"],
    "monday": ["/cam0/image_raw", "/cam1/image_raw"],
    "tuesday": ["/cam0/image_raw", "/cam1/image_raw"],
    "left": ["/left/image_rect"],
    "right": ["/right/image_rect"],
}
COMMAND_SECONDS = 600.0


def shell_lines(block):
    """The commands of a block, without comments, continued lines joined."""
    lines = block.code.replace("\\\n", " ").splitlines()
    return [command for line in lines if (command := re.sub(r"(^|\s+)#.*", "", line))]


def runs(block):
    return not block.marks and all(line.startswith("lightglue_ros ") for line in shell_lines(block))


# Code that runs.


@pytest.fixture
def user(model_folder, motorcycle, tmp_path, monkeypatch):
    """Go to a folder with the files that the pages name, and a model store that has all their models."""
    for name, image in zip(("left.png", "right.png"), motorcycle, strict=True):
        write_image(tmp_path / name, image)
    for name in MODELS:
        # Links to the files and not to the folder: what a command exports must not go into the real store.
        (tmp_path / "models" / name).mkdir(parents=True)
        for file in model_folder.iterdir():
            (tmp_path / "models" / name / file.name).symlink_to(file)
    (tmp_path / "config").symlink_to(ROOT / "config")
    monkeypatch.setenv("LIGHTGLUE_ROS_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def bags(motorcycle, tmp_path_factory):
    """Record three frames of grey images in each of BAGS, in one folder."""
    pytest.importorskip("rosbags", reason="no rosbags here (pip install rosbags)")
    from recordings import image_message, jpeg_message, stamp_of, write_bag

    folder = tmp_path_factory.mktemp("bags")
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in motorcycle]
    for name, topics in BAGS.items():
        messages = []
        for frame, (number, topic) in itertools.product(range(3), enumerate(topics)):
            make = jpeg_message if "compressed" in topic else image_message
            stamp = stamp_of(frame)
            messages.append((topic, make(grey[number % 2][4 * frame :], "camera", stamp), stamp))
        write_bag(folder / name, "mcap", messages)
    return folder


@pytest.mark.parametrize(
    "line", dict.fromkeys(line for _, block in SHELL if runs(block) for line in shell_lines(block))
)
def test_a_command_runs_as_printed(line, user, bags):
    for bag in bags.iterdir():
        (user / bag.name).symlink_to(bag)
    done = subprocess.run(
        ["bash", "-c", f"exec {line} 2>&1"], stdout=subprocess.PIPE, text=True, timeout=COMMAND_SECONDS
    )
    assert done.returncode == 0, done.stdout
    assert "Traceback" not in done.stdout
    words = shlex.split(line)
    for option, value in itertools.pairwise(words):
        assert option not in ("--draw", "--json", "-o") or (user / value).exists(), value


def python_values(page, values):
    """Run the Python of a page in its order, and return its names."""
    for block in extract_from_file(ROOT / page):
        if block.syntax == "python" and not block.marks:
            exec(block.code, values)
    return values


def test_the_python_of_the_readme_runs(user):
    pair = python_values("README.md", {})["pair"]
    assert len(pair.keypoints0) == len(pair.scores) > 300


def test_the_python_of_coming_from_runs_and_gives_the_same_matches_each_way(user):
    values = python_values("docs/coming_from.md", {})
    np.testing.assert_array_equal(values["points0"], values["same_points0"])
    assert values["counts"][0] > 300
    assert values["counts"][1] == 0  # its second image is missing
    matches, pair, keypoints = values["matches"], values["opencv_pair"], values["keypoints"]
    assert len(matches) == len(pair.scores) > 300
    assert keypoints[0][matches[0].queryIdx].pt == pytest.approx(pair.keypoints0[0].tolist())
    assert keypoints[1][matches[0].trainIdx].pt == pytest.approx(pair.keypoints1[0].tolist())


def test_the_python_of_the_node_finds_the_pose_of_a_plane():
    """A dock 1.5 m in front of the camera and 0.1 m to the right, turned by 20 degrees about its vertical."""
    camera_matrix = np.array([[500.0, 0, 320], [0, 500.0, 240], [0, 0, 1]])
    turned = cv2.Rodrigues(np.array([0.0, np.radians(20), 0.0]))[0]
    from_dock = camera_matrix @ np.column_stack([0.001 * turned[:, :2], [0.1, 0.0, 1.5]])
    pair = SimpleNamespace(matrix=np.linalg.inv(from_dock).ravel(), width1=400, height1=300)
    values = python_values("docs/node.md", {"pair": pair, "camera_matrix": camera_matrix})
    assert values["translation"].ravel() == pytest.approx([0.1, 0.0, 1.5], abs=1e-3)
    np.testing.assert_allclose(cv2.Rodrigues(values["rotation"])[0], turned, atol=1e-3)


def test_the_example_of_an_extractor_makes_a_model(monkeypatch):
    registry = pytest.importorskip("lightglue_ros.export.registry", reason="no PyTorch here")
    monkeypatch.setattr(registry, "MODELS", {})
    python_values("docs/adding_an_extractor.md", {**vars(registry), "Mine": registry.XFeat})
    assert registry.find_spec("mine").divisor == 8


# Commands that are only checked.


def check(words):
    """Fail if a command names something of ours that does not exist, or does not take what it is given."""
    while words and re.fullmatch(r"[A-Z_0-9]+=.*", words[0]):
        words = words[1:]
    if words[:3] == ["ros2", "run", "lightglue_ros"]:
        words = words[2:]
    match words:
        case ["lightglue_ros", "matcher" | "viewer", *rest]:
            read_file(None, parameters_given(rest))
        case ["lightglue_ros", "player" | "vins_features" as node, *rest]:
            source = (ROOT / f"lightglue_ros/nodes/{node}.py").read_text()
            names = (value.partition(":=")[0] for value in parameters_given(rest))
            assert all(f'"{name}": _spec(' in source for name in names), words
        case ["lightglue_ros", *arguments] if "--list" not in arguments:
            parsed = cli.make_parser().parse_args(arguments)
            read_file(None, getattr(parsed, "param", []))
        case ["ros2", "launch", "lightglue_ros", file, *arguments]:
            sources = [ROOT / "launch" / file, ROOT / "lightglue_ros/nodes/launching.py"]
            text = "".join(source.read_text() for source in sources)
            assert all(f'"{argument.partition(":=")[0]}"' in text for argument in arguments), words
        case ["ros2", "param", "set", "/matcher", name, value]:
            read_file(None, [f"{name}:={value}"])
        case ["ros2", "param", _, "/matcher", name]:
            assert name in (*SPECS, "NAME"), words
        case ["make", target, *_]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M), words
        case ["." | "python", path, *_] if "/" in path:
            assert (ROOT / path).is_file(), words
        case ["pip", "install", *arguments]:
            setup = (ROOT / "setup.py").read_text()
            extras = ",".join(re.findall(r"^\.\[(.*)\]$", "\n".join(arguments), re.M)).split(",")
            assert all(f'"{extra}": [' in setup for extra in filter(None, extras)), words
            files = (file for option, file in itertools.pairwise(arguments) if option == "-r")
            assert all((ROOT / file).is_file() for file in files), words


def parameters_given(words):
    return [value for option, value in itertools.pairwise(words) if option == "-p"]


def commands():
    """All commands of the pages: those of blocks, and those among words with their arguments."""
    for page, block in SHELL:
        yield from ((page, line) for line in shell_lines(block))
    for page in PAGES:
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
        spans = re.findall(r"`((?:lightglue_ros|ros2|make|python) [^`]+)`", text)
        yield from ((page, " ".join(span.split())) for span in spans if len(span.split()) > 2)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_take_what_they_are_given(page):
    for own, line in commands():
        is_example = "..." in line or "COMMAND" in line or "name:=value" in line
        for command in [] if own != page or is_example else line.split("&&"):
            check(shlex.split(re.sub(r"\$\([^)]*\)", "PREFIX", command)))


def test_wrong_commands_are_noticed():
    for line in (
        "lightglue_ros match left.png right.png --tint red",
        "lightglue_ros bag drive -o out -p image_width:=broad",
        "ros2 run lightglue_ros matcher --ros-args -p match_threshold:=7.0",
        "ros2 launch lightglue_ros matcher.launch.py colour:=red",
        "ros2 param set /matcher image_width 10",
        "make tea",
        "python bench/tea.py",
        "pip install '.[tea]'",
        "pip install -r requirements/tea.txt",
    ):
        with pytest.raises((Exception, SystemExit)):
            check(shlex.split(line))


# Words.


@pytest.mark.model
def test_the_tables_are_those_of_the_code(capsys):
    pytest.importorskip("rclpy", reason="no ROS 2 here")
    document = pytest.importorskip("document", reason="no cog (pip install cogapp)")
    assert document.main(["--check"]) == 0, f"{capsys.readouterr().out}\nfix: make docs"


def test_the_code_says_the_texts_that_troubleshooting_quotes():
    page = ROOT / "docs" / "troubleshooting.md"
    boxes = "".join(block.code for block in extract_from_file(page) if block.syntax == "text").splitlines()
    quotes = boxes + re.findall(r"\*\*`([^`]+ [^`]+)`\*\*:", page.read_text())
    files = [file for folder in ("lightglue_ros", "export") for file in (ROOT / folder).rglob("*.py")]
    # Texts that go over several lines are joined.
    joined = re.sub(r"""["']\s*\n\s*[rf]?["']""", "", "\n".join(file.read_text() for file in files))
    source = " ".join(joined.split())
    for quote in quotes:
        fixed = [part.strip(" ;") for part in re.split(r"<[^>]*>|; allowed: |; dropped", quote)]
        assert max(map(len, fixed)) >= 8, quote
        assert all(part in source for part in fixed), quote


def test_names_and_files_on_the_pages_exist():
    code = "\n".join(
        file.read_text()
        for folder in ("bench", "config", "export", "launch", "lightglue_ros", "msg", "test")
        for file in (ROOT / folder).rglob("*")
        if file.suffix in (".py", ".yaml", ".xml", ".msg", ".md") and file != Path(__file__)
    )
    pattern = r"(?<![\w/])(?:bench|config|docs|export|launch|lightglue_ros|test|tools)/[\w/.-]+\.[a-z]+\b"
    for page in PAGES:
        text = re.sub(r"\$\([^)]*\)/|share/lightglue_ros/", "", page.read_text())
        for file in re.findall(pattern, text):
            assert (ROOT / file).is_file(), f"{page.name}: {file}"
        if page.name != "coming_from.md":  # it names those of others
            for name in re.findall(r"`([a-zA-Z]+(?:_[a-zA-Z0-9]+)+)(?:\(.*?\))?`", text):
                assert re.search(rf"\b{name}\b", code), f"{page.name}: {name}"


def test_tests_that_coming_from_names_exist():
    tests = "\n".join(file.read_text() for file in (ROOT / "test").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", (ROOT / "docs/coming_from.md").read_text())
    assert len(named) >= 9
    assert [name for name in named if f"def {name}(" not in tests] == []


def test_parameters_given_among_words_are_allowed():
    text = "\n".join(page.read_text() for page in PAGES)
    given = [pair for pair in re.findall(r"`(\w+): ([\w.]+)`", text) if pair[0] in SPECS]
    assert len(given) >= 5
    for name, value in given:
        partner = ["publish_features:=true"] if name == "publish_matches" else []
        read_file(None, [f"{name}:={value}", *partner])


def test_links_lead_somewhere():
    for page in PAGES:
        for file, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)]+))?\)", page.read_text()):
            target = page.parent / file if file else page
            assert target.exists(), f"{page.name}: {file}"
            if anchor:
                titles = re.findall(r"^#+ (.+)$", target.read_text(), re.M)
                anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
                assert anchor in anchors, f"{page.name}: {file}#{anchor}"


def test_the_readme_is_short():
    assert (ROOT / "README.md").stat().st_size <= 9 * 1024


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["title"], citation["version"]) == ("lightglue_ros", __version__)
    assert f"<version>{__version__}</version>" in (ROOT / "package.xml").read_text()
