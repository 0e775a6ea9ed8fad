"""Each block of README.md, CONTRIBUTING.md and docs/ is true.

Commands exist and take their arguments, Python compiles and imports, the node reads the parameter files, the
code says the texts. A block or a command of no known kind fails. What can be run is run by other tests
(`printed.py`).
"""

import argparse
import ast
import re
import shlex
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here")
pytest.importorskip("torch", reason="no PyTorch here, which the options of export need")

import yaml
from ament_index_python.packages import get_package_prefix
from printed import (
    AMONG_WORDS,
    BLOCKS,
    DOCUMENTS,
    OURS,
    OUTSIDE,
    PYTHON,
    ROOT,
    SAID,
    SHELL,
    YAML,
    Block,
    commands_of,
    first_word,
    is_said,
    run_by,
    templates,
)
from rclpy.parameter import Parameter

from lightglue_ros import __version__, cli
from lightglue_ros.cli.export import EXPORT_OPTIONS
from lightglue_ros.cli.match import parse_geometry
from lightglue_ros.core import LightGlueRosError
from lightglue_ros.export.options import ExportOptions
from lightglue_ros.export.registry import find_spec
from lightglue_ros.nodes import player
from lightglue_ros.nodes.topics import TOPICS
from lightglue_ros.rosdata.parameters import SPECS, read_file

PREFIX = Path(get_package_prefix("lightglue_ros"))
OF_OURS = ("troubleshooting", "adding_an_extractor")  # pages that name nothing of others
TRANSITIONS = ("configure", "activate", "deactivate", "cleanup", "shutdown")
# Of ROS, Fast DDS and us.
VARIABLES = re.compile(r"(ROS|RMW|FASTDDS|FASTRTPS|LIGHTGLUE_ROS|CUDA|OMP)_[A-Z_]+|(PYTHON)?PATH|[A-Z]+")
EVERYWHERE = ("use_sim_time", "qos_overrides")  # parameters that ROS gives to every node
# What goes with a value where alone it says that there is nothing to do.
PARTNERS = {"publish_matches": ["publish_features:=true"]}


# Commands.


def check_shell(text: str) -> None:
    for line in text.replace("\\\n", " ").splitlines():
        # Commands within commands first: their places are known.
        for inner in re.findall(r"\$\(([^()]*)\)", line):
            check_command(shlex.split(inner))
        line = line.replace("$(ros2 pkg prefix lightglue_ros)", str(PREFIX))
        line = line.replace("$(ros2 pkg prefix --share lightglue_ros)", str(PREFIX / "share/lightglue_ros"))
        for words in commands_of(line):
            check_command(words)


def check_command(words: list[str]) -> None:
    for word in words:
        if str(PREFIX) in word:
            path = Path(str(PREFIX) + word.partition(str(PREFIX))[2])
            assert path.exists(), path
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        name = words.pop(0).partition("=")[0]
        assert VARIABLES.fullmatch(name), name
    if words:
        assert words[0] in PROGRAMS, f"{words[0]} is no program that is known here"
        PROGRAMS[words[0]](words[1:])


def check_lightglue_ros(arguments: list[str]) -> None:
    command = arguments[0]
    if command in cli.NODES:
        check_ros_arguments(command, arguments[1:])
        return
    if {"--help", "-h", "--list", "--version"} & set(arguments):
        return
    parsed = parsed_by_cli(arguments)
    if command == "export":
        options = {name: getattr(parsed, name) for name in EXPORT_OPTIONS}
        ExportOptions(**options).settle(find_spec("xfeat" if parsed.model == "MODEL" else parsed.model))
    if command == "match":
        parse_geometry(parsed.verify, parsed.intrinsics)
    if command == "bag":
        read_file(existing(parsed.params_file), parsed.param)


def parsed_by_cli(arguments: list[str]) -> argparse.Namespace:
    try:
        return cli.make_parser().parse_args(arguments)
    except SystemExit as end:  # it has said why
        raise AssertionError(f"lightglue_ros does not take {arguments}") from end


def existing(path: Path | None) -> Path | None:
    return path if path is not None and path.exists() else None


def check_ros_arguments(node: str, arguments: list[str]) -> None:
    values = [value for option, value in pairwise(arguments) if option in ("-p", "--param")]
    values = [value for value in values if not value.startswith(EVERYWHERE)]
    if node != "player":
        read_file(None, values)
        return
    for name, _, value in (value.partition(":=") for value in values):
        default, found = player.SPECS[name].default, yaml.safe_load(value)
        kind = list if default == Parameter.Type.STRING_ARRAY else type(default)
        assert type(found) is kind, (name, value)


def check_ros2(arguments: list[str]) -> None:
    verb, *rest = arguments
    assert verb in ROS2, f"ros2 {verb} is not known here"
    ROS2[verb](rest)


def check_launch(arguments: list[str]) -> None:
    package, file, *values = arguments
    if package != "lightglue_ros":
        return
    sources = [ROOT / "launch" / file, ROOT / "lightglue_ros/nodes/launching.py"]
    known = re.findall(r'DeclareLaunchArgument\(\s*"(\w+)"', "".join(path.read_text() for path in sources))
    for name, sign, _ in (value.partition(":=") for value in values):
        assert sign, values
        assert name in known, f"{file} has no argument {name}"


def check_run(arguments: list[str]) -> None:
    package, executable, *rest = arguments
    if package == "lightglue_ros":
        assert (PREFIX / "lib/lightglue_ros" / executable).is_file(), executable
        check_lightglue_ros([executable, *rest])


def check_param(arguments: list[str]) -> None:
    verb, *rest = arguments
    assert verb in ("get", "set", "describe", "list", "dump"), verb
    for name in rest[1:2]:
        assert name in SPECS or name == "NAME", name
    if verb == "set":
        read_file(None, [f"{rest[1]}:={rest[2]}"])


def check_topic(arguments: list[str]) -> None:
    verb, *rest = arguments
    assert verb in ("echo", "hz", "bw", "info", "list", "delay"), verb
    of_images = [topic + end for topic in SPECS["image_topics"].default for end in ("", "/compressed")]
    known = {topic.name.strip("/") for topics in TOPICS.values() for topic in topics} | set(of_images)
    for word in rest:
        assert not word.startswith("/") or word.strip("/") in known, word


def check_lifecycle(arguments: list[str]) -> None:
    assert arguments[0] in ("set", "get", "list"), arguments
    assert all(word in TRANSITIONS for word in arguments[2:]), arguments


def check_pkg(arguments: list[str]) -> None:
    assert arguments in (["prefix", "lightglue_ros"], ["prefix", "--share", "lightglue_ros"]), arguments


def check_interface(arguments: list[str]) -> None:
    assert (ROOT / "msg" / f"{arguments[1].rpartition('/')[2]}.msg").is_file(), arguments


def check_python(arguments: list[str]) -> None:
    if arguments[:2] == ["-m", "lightglue_ros"]:
        check_lightglue_ros(arguments[2:])
    elif arguments[0] == "-c":
        compile(arguments[1], "-c", "exec")
    elif arguments[0] != "-m":
        check_script(ROOT / arguments[0], arguments[1:])


def check_script(path: Path, arguments: list[str]) -> None:
    text = path.read_text()
    for word in arguments:
        option = word.partition("=")[0]
        assert not option.startswith("--") or f'"{option}"' in text, f"{path} has no option {option}"


def check_make(arguments: list[str]) -> None:
    text = (ROOT / "Makefile").read_text()
    for word in arguments:
        name, is_variable, _ = word.partition("=")
        pattern = rf"^{re.escape(name)} \?=" if is_variable else rf"^{re.escape(name)}:"
        assert re.search(pattern, text, re.MULTILINE), f"make {word}"


def check_pip(arguments: list[str]) -> None:
    known = re.findall(r'^        "(\w+)": \[', (ROOT / "setup.py").read_text(), re.MULTILINE)
    for before, word in pairwise(["", *arguments]):
        if extras := re.fullmatch(r"\.\[(.+)\]", word):
            assert set(extras[1].split(",")) <= set(known), word
        if before == "-r":
            assert (ROOT / word).is_file(), word


def check_pytest(arguments: list[str]) -> None:
    for word in arguments:
        assert word.startswith("-") or (ROOT / "test" / word.partition("::")[0]).exists(), word


def check_source(arguments: list[str]) -> None:
    (path,) = arguments
    assert path.endswith("/setup.bash") or (ROOT / path).is_file(), path


def check_export(arguments: list[str]) -> None:
    for word in arguments:
        assert VARIABLES.fullmatch(word.partition("=")[0]), word


def of_others(arguments: list[str]) -> None:
    """Nothing that is ours."""


ROS2 = {
    "bag": of_others,
    "daemon": of_others,
    "interface": check_interface,
    "launch": check_launch,
    "lifecycle": check_lifecycle,
    "node": of_others,
    "param": check_param,
    "pkg": check_pkg,
    "run": check_run,
    "security": of_others,
    "topic": check_topic,
}
PROGRAMS = {
    **dict.fromkeys(OUTSIDE, of_others),
    ".": check_source,
    "export": check_export,
    "lightglue_ros": check_lightglue_ros,
    "make": check_make,
    "pip": check_pip,
    "pytest": check_pytest,
    "python": check_python,
    "python3": check_python,
    "ros2": check_ros2,
    "source": check_source,
}


# Python, parameter files, texts.


def check_python_block(text: str) -> None:
    """It compiles, and what it imports of ours is there."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("lightglue_ros"):
            module = import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"


def check_yaml(text: str, path: Path) -> None:
    path.write_text(text)
    read_file(path)
    for section in re.findall(r"ros__parameters:\n((?:[ \t]+.*\n?)*)", text):
        for name in yaml.safe_load(section):
            assert name in SPECS or name.startswith(EVERYWHERE), name


def check(block: Block, folder: Path) -> None:
    kind = block.kind
    try:
        if kind == SHELL:
            check_shell(block.text)
        elif kind == PYTHON:
            check_python_block(block.text)
        elif kind == YAML:
            check_yaml(block.text, folder / "parameters.yaml")
        elif kind == SAID:
            for line in block.text.splitlines():
                assert is_said(line), f"the code does not say: {line}"
    except LightGlueRosError as error:
        raise AssertionError(f"{block}: {error}") from error


RUN_AMONG_WORDS = [block for block in AMONG_WORDS if run_by(block, block.text)]


@pytest.mark.parametrize("block", [*BLOCKS, *RUN_AMONG_WORDS], ids=str)
def test_a_block_is_what_the_code_takes_and_says(block, tmp_path):
    check(block, tmp_path)


def test_each_program_has_a_check():
    assert set(PROGRAMS) == {*OUTSIDE, *OURS}


def test_the_readme_has_blocks_for_the_shell_and_of_python():
    kinds = [block.kind for block in BLOCKS if block.path.name == "README.md"]
    assert kinds.count(SHELL) >= 10
    assert kinds.count(PYTHON) >= 2


@pytest.mark.parametrize(
    "text",
    [
        "lightglue_ros match left.png right.png --colour red",
        "lightglue_ros match left.png right.png --verify sphere",
        "lightglue_ros export disc --split",
        "lightglue_ros export xfeat --batch 4",
        "lightglue_ros bag drive -o out -p image_width:=broad",
        "ros2 run lightglue_ros nobody",
        "ros2 run lightglue_ros matcher --ros-args -p match_threshold:=7.0",
        "ros2 run lightglue_ros player --ros-args -p rate:=10",
        "ros2 launch lightglue_ros matcher.launch.py colour:=red",
        "ros2 launch lightglue_ros other.launch.py",
        "ros2 param set /matcher image_width 10",
        "ros2 topic hz /middle/image_rect",
        "ros2 lifecycle set /matcher stop",
        "rviz2 -d $(ros2 pkg prefix --share lightglue_ros)/config/none.rviz",
        "pip install '.[everything]'",
        "make tea",
        "python bench/tea.py",
        "python bench/pose.py --tea",
        ". tools/none.sh",
        "cd x && tea --hot",
        "from lightglue_ros.core import Tea",
        "/**:\n  ros__parameters:\n    colour: red",
        "there is no tea; fix: boil water",
        "tea --hot",
    ],
)
def test_a_block_that_is_wrong_is_noticed(text, tmp_path, capsys):
    with pytest.raises((AssertionError, OSError)):
        check(Block(ROOT / "README.md", 1, "", text), tmp_path)


def quoted_texts() -> list[str]:
    """Words between backticks in the page of symptoms that are no command, name or value."""
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]
    return [span for span in spans if span.count(" ") >= 2 and first_word(span) not in PROGRAMS]


def test_texts_quoted_among_words_are_said_as_well():
    sources = "\n".join(pattern.pattern for pattern, _ in templates())
    for quoted in quoted_texts():
        parts = [part.strip() for part in quoted.split("...")]
        is_literal = all(re.escape(part) in sources for part in parts)
        assert is_literal or is_said(quoted), quoted


def test_names_of_the_code_among_words_are_in_the_code():
    pages = [ROOT / "CONTRIBUTING.md", *(ROOT / "docs" / f"{name}.md" for name in OF_OURS)]
    folders = ("config", "export", "launch", "lightglue_ros", "msg", "test")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    code = "\n".join(path.read_text() for path in files if path.suffix in (".py", ".yaml", ".xml", ".msg"))
    for page in pages:
        names = set(re.findall(r"`([a-zA-Z]+(?:_[a-zA-Z0-9]+)+)(?:\(.*?\))?`", page.read_text()))
        unknown = [name for name in names if not re.search(rf"\b{name}\b", code) and not is_said(name)]
        assert not unknown, page


def test_files_named_among_words_are_there():
    for document in DOCUMENTS:
        for name in re.findall(r"`((?:\w+/)+[\w.-]+\.(?:py|md|yaml|xml|npz))`", document.read_text()):
            assert (ROOT / name).is_file() or "OUT/" in name, f"{document.name}: {name}"


def test_parameters_given_among_words_are_allowed():
    text = "\n".join(path.read_text() for path in DOCUMENTS)
    given = [pair for pair in re.findall(r"`(\w+): ([\w.]+)`", text) if pair[0] in SPECS]
    assert len(given) >= 5
    for name, value in given:
        read_file(None, [f"{name}:={value}", *PARTNERS.get(name, [])])


def test_links_within_a_document_and_to_parts_of_others_lead_somewhere():
    for path in DOCUMENTS:
        for file, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", path.read_text()):
            text = (path.parent / file if file else path).read_text()
            titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in anchors, f"{path.name}: {file}#{anchor}"


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["title"], citation["version"]) == ("lightglue_ros", __version__)
    assert f"<version>{__version__}</version>" in (ROOT / "package.xml").read_text()
