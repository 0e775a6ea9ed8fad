"""Writes the tables of README.md and docs/ from the code.

    . tools/env.sh
    python tools/document.py             # or with --check: name the files whose tables are stale, and fail

A table stands between `<!-- generated: NAME -->` and `<!-- end -->`; NAME is one of TABLES. What it says is
said where the thing is declared: a parameter in rosdata/parameters.py and nodes/player.py, a topic in
nodes/topics.py, a field in msg/, an option in cli.py, a model in export/registry.py, pose figures in
bench/results/pose.md.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import yaml
from rclpy.parameter import Parameter

from lightglue_ros import cli
from lightglue_ros.core import ConfigError, LightGlueRosError
from lightglue_ros.export.registry import MODELS, ModelSpec
from lightglue_ros.nodes import player
from lightglue_ros.nodes.topics import TOPICS
from lightglue_ros.rosdata.parameters import SPECS, CameraParameters, MatcherParameters, Spec

ROOT = Path(__file__).parents[1]
MESSAGES = ("Matches", "PairMatches", "Features")
POSE_DEGREES = 5
POSE_VARIANTS = ("original", "fp32", "fp16")
_GENERATED = re.compile(r"(<!-- generated: (?P<name>.+?) -->\n).*?(<!-- end -->)", re.DOTALL)

# Words with _, / or @ in them, files and options.
_NAME = re.compile(r"(?<![\w`-])(?:[\w.:-]*[_/@][\w./:@*-]*[\w*]|\w+\.(?:onnx|h5|txt)|--[a-z][\w-]*)")

Rows = Iterable[Sequence[str]]


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check; the exit status is 1 where --check finds stale tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--root", type=Path, default=ROOT, help="of the checkout (this one)")
    arguments = parser.parse_args(argv)
    try:
        stale = [path for path in documents(arguments.root) if is_stale(path, arguments.root)]
        for path in stale:
            if not arguments.check:
                path.write_text(rendered(path.read_text(), arguments.root))
            print(f"{'stale' if arguments.check else 'written'}: {path.relative_to(arguments.root)}")
    except LightGlueRosError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if stale and arguments.check:
        print("fix: python tools/document.py", file=sys.stderr)
    return int(arguments.check and bool(stale))


def documents(root: Path) -> list[Path]:
    """The files that may have tables."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def is_stale(path: Path, root: Path) -> bool:
    """Whether a table of the file says something else than the code."""
    text = path.read_text()
    return rendered(text, root) != text


def rendered(text: str, root: Path) -> str:
    """The text with its tables made anew.

    Raises:
        ConfigError: a table has an unknown name, or no end.
    """

    def fill(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in TABLES:
            raise ConfigError(f"there is no table '{name}'", allowed=", ".join(TABLES))
        return f"{match[1]}{TABLES[name](root)}\n{match[3]}"

    if text.count("<!-- generated: ") != len(_GENERATED.findall(text)):
        raise ConfigError("a table has no end", allowed="<!-- generated: NAME --> ... <!-- end -->")
    return _GENERATED.sub(fill, text)


def table(head: Sequence[str], rows: Rows, right: Sequence[str] = ()) -> str:
    """A table in Markdown; the columns named in `right` are aligned to the right."""
    rule = ["---:" if name in right else "---" for name in head]
    lines = [head, rule, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)


def marked(text: str) -> str:
    """A text with names of the code as code, where it does not say so itself."""
    return _NAME.sub(lambda match: code(match[0]), text)


def code(text: str) -> str:
    """A text as code; nothing where it is empty."""
    return f"`{text}`" if text else ""


# Parameters.


def matcher_parameters(_: Path) -> str:
    """All parameters of the matcher."""
    return _parameter_table(_specs(MatcherParameters))


def common_parameters(root: Path) -> str:
    """The parameters of the matcher that its parameters file shows."""
    (of_nodes,) = yaml.safe_load((root / "config" / "matcher.yaml").read_text()).values()
    specs = ((name, SPECS[name]) for name in of_nodes["ros__parameters"])
    rows = [(code(name), _default(spec), _meaning(spec)) for name, spec in specs]
    return table(("parameter", "default", ""), rows)


def viewer_parameters(_: Path) -> str:
    """The parameters that the viewer shares with the matcher, by name."""
    return ", ".join(code(name) for name, _ in _specs(CameraParameters))


def player_parameters(_: Path) -> str:
    """All parameters of the player; none of them can change."""
    rows = [
        (code(name), _default(spec), spec.allowed, marked(spec.description))
        for name, spec in player.SPECS.items()
    ]
    return table(("parameter", "default", "allowed", "meaning"), rows)


def _specs(kind: type[CameraParameters]) -> list[tuple[str, Spec]]:
    names = {field.name for field in fields(kind)}
    return [(name, spec) for name, spec in SPECS.items() if name in names]


def _parameter_table(specs: Iterable[tuple[str, Spec]]) -> str:
    rows = [
        (code(name), _default(spec), spec.allowed, _when(spec), marked(spec.description))
        for name, spec in specs
    ]
    return table(("parameter", "default", "allowed", "can change", "meaning"), rows)


def _default(spec: Spec) -> str:
    value = spec.default
    if isinstance(value, Parameter.Type):
        return ""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _when(spec: Spec) -> str:
    if spec.is_read_only:
        return "never"
    return "while it runs" if spec.can_change else "unconfigured"


def _meaning(spec: Spec) -> str:
    choices = f" One of {', '.join(spec.choices)}." if spec.choices else ""
    return f"{marked(spec.description)}{choices}{' Can change.' if spec.can_change else ''}"


# Topics.


def topics(node: str, _: Path) -> str:
    """The topics of a node."""
    rows = [
        (
            code(topic.name),
            topic.type,
            "publishes" if topic.is_published else "subscribes",
            marked(topic.description),
        )
        for topic in TOPICS[node]
    ]
    return table(("topic", "type", "", "when, what"), rows)


# Messages.


@dataclass(frozen=True)
class Block:
    """Lines of a message that one comment is for.

    Attributes:
        comment: what it says.
        fields: (type, name) of each.
        constants: (name, value, comment) of each.
    """

    comment: str
    fields: list[tuple[str, str]]
    constants: list[tuple[str, str, str]]


def message(name: str, root: Path) -> str:
    """What a message is, and a table of its fields."""
    about, *blocks = _blocks((root / "msg" / f"{name}.msg").read_text())
    rows = []
    for block in blocks:
        kinds = list(dict.fromkeys(kind for kind, _ in block.fields))
        names = ", ".join(code(field) for _, field in block.fields)
        rows.append((names, ", ".join(kinds), _block_text(block)))
    return f"{about.comment}\n\n{table(('field', 'type', 'meaning'), rows)}"


def _block_text(block: Block) -> str:
    constants = (
        f"{code(name)} ({value}){f': {comment}' if comment else ''}"
        for name, value, comment in block.constants
    )
    return " ".join(filter(None, [marked(block.comment), "; ".join(constants)]))


def _blocks(text: str) -> Iterator[Block]:
    """The paragraphs of a message's definition; constants go with the field after them."""
    constants: list[tuple[str, str, str]] = []
    comment: list[str] = []
    for paragraph in text.strip().split("\n\n"):
        found: list[tuple[str, str]] = []
        for line in paragraph.splitlines():
            kind, name, value, remark = _parse(line)
            if value:
                constants.append((name, value, remark))
            elif name:
                found.append((kind, name))
            elif line.startswith(" ") and constants:
                constants[-1] = (*constants[-1][:2], f"{constants[-1][2]} {remark}")
            else:
                comment.append(remark)
        if found or (comment and not constants):
            yield Block(" ".join(comment), found, constants)
            constants, comment = [], []


def _parse(line: str) -> tuple[str, str, str, str]:
    """Type, name, value of a constant and comment of a line, each empty where there is none."""
    declared, _, remark = line.partition("#")
    kind, _, name = declared.strip().partition(" ")
    name, _, value = name.partition("=")
    return kind, name.strip(), value.strip(), remark.strip()


# Command line.


def command_line(_: Path) -> str:
    """All commands with their arguments."""
    parts = []
    for name, text, parser in _commands():
        parts.append(f"## {name}\n\n{_sentence(parser.description or text)}")
        rows = _options(parser)
        parts.append(table(("argument", "meaning"), rows) if rows else f"Usage: `{parser.epilog}`")
    return "\n\n".join(parts)


def options(command: str, _: Path) -> str:
    """The options of one command."""
    (parser,) = (parser for name, _, parser in _commands() if name == command)
    return table(("argument", "meaning"), _options(parser))


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:].rstrip('.')}."


def _commands() -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """Name, help and parser of each command."""
    # argparse has no public way to ask a parser what it takes.
    (commands,) = (
        action for action in cli.make_parser()._actions if isinstance(action, argparse._SubParsersAction)
    )
    texts = {action.dest: action.help or "" for action in commands._choices_actions}
    for name, parser in commands.choices.items():
        yield name, texts[name], parser


def _options(parser: argparse.ArgumentParser) -> list[tuple[str, str]]:
    actions = (action for action in parser._actions if not isinstance(action, argparse._HelpAction))
    return [(code(_usage(action)), marked(action.help or "")) for action in actions]


def _usage(action: argparse.Action) -> str:
    names = ", ".join(action.option_strings)
    if action.nargs == 0:
        return names
    value = str(action.metavar or action.dest.upper())
    value = {"+": f"{value} [{value} ...]", "?": f"[{value}]"}.get(str(action.nargs), value)
    return f"{names} {value}".strip()


# Models.


def models(root: Path) -> str:
    """The models with their licences and what was measured of their poses."""
    poses = _poses(root / "bench" / "results" / "pose.md")
    head = f"pose AUC at {POSE_DEGREES}°: {', '.join(POSE_VARIANTS)}"
    rows = [_model(spec, poses) for spec in MODELS.values()]
    return table(("model", "what", "licence of the weights", head), rows, right=(head,))


def _model(spec: ModelSpec, poses: dict[tuple[str, str], str]) -> tuple[str, ...]:
    figures = [poses[spec.name, variant] for variant in POSE_VARIANTS if (spec.name, variant) in poses]
    return code(spec.name), marked(spec.description), spec.licence, ", ".join(figures) or "not measured"


def _poses(path: Path) -> dict[tuple[str, str], str]:
    """The area under the curve by model and variant, as the table of bench/pose.py has it."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in path.read_text().splitlines()
        if line.startswith("|")
    ]
    column = rows[0].index(f"AUC at {POSE_DEGREES} degrees")
    return {(row[0], row[1]): row[column].split(" ")[0] for row in rows[2:]}


TABLES: dict[str, Callable[[Path], str]] = {
    "models": models,
    **{f"message {name}": partial(message, name) for name in MESSAGES},
    "common parameters": common_parameters,
    "parameters of the matcher": matcher_parameters,
    "parameters of the viewer": viewer_parameters,
    "parameters of the player": player_parameters,
    **{f"topics of the {node}": partial(topics, node) for node in TOPICS},
    "options of export": partial(options, "export"),
    "command line": command_line,
}

if __name__ == "__main__":
    sys.exit(main())
