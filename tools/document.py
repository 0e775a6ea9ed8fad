"""Writes the tables of README.md and docs/ from the code, with cog.

    . tools/env.sh
    python tools/document.py             # with --check: write nothing, name the stale files and fail

In a page, an HTML comment with `[[[cog` calls a function of this module; the table ends at `[[[end]]]`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from cogapp import Cog
from rclpy.parameter import Parameter

from lightglue_ros import cli
from lightglue_ros.export.registry import MODELS
from lightglue_ros.nodes import player, vins_features
from lightglue_ros.rosdata.camera_parameters import CameraParameters
from lightglue_ros.rosdata.parameter_spec import Spec, specs_of
from lightglue_ros.rosdata.parameters import SPECS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Identifiers, paths and options inside prose: words with _, / or @, file names, and --options.
_NAME = re.compile(
    r"(?<![\w`-])"
    r"(?:[\w.:-]*[_/@][\w./:@*-]*[\w*](?::=[\w.]+)?|\w+\.(?:onnx|h5|txt)|--[a-z][\w-]*)"
)


def main(arguments: Sequence[str]) -> int:
    """Write the tables of all pages, or check them, and return cog's exit status."""
    mode = ["--check", "--diff"] if "--check" in arguments else ["-r"]
    names = [str(page) for page in PAGES]
    return Cog().main(["cog", *mode, "-I", str(ROOT / "tools"), "-p", "from document import *", *names])


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *cells])


def marked(text: str) -> str:
    """Return a text with the identifiers in it marked as code."""
    return _NAME.sub(lambda match: f"`{match[0]}`", text)


def parameters(names: str) -> str:
    """Return a short table of some of the matcher's parameters, named in a text."""
    rows = [(f"`{name}`", _default(SPECS[name]), marked(SPECS[name].description)) for name in names.split()]
    return table(("parameter", "default", "meaning"), rows)


def viewer_parameters() -> str:
    """Return the names of the parameters that the viewer shares with the matcher."""
    return ", ".join(f"`{name}`" for name in specs_of(CameraParameters))


def player_parameters() -> str:
    """Return a table of all parameters of the player."""
    return parameter_table(player.SPECS)


def vins_features_parameters() -> str:
    """Return a table of all parameters of vins_features."""
    return parameter_table(vins_features.SPECS)


def parameter_table(specs: Mapping[str, Spec]) -> str:
    """Return a table of all parameters of a node."""
    rows = [
        (f"`{name}`", _default(spec), spec.allowed, _when(spec), marked(spec.description))
        for name, spec in specs.items()
    ]
    return table(("parameter", "default", "allowed", "can change", "meaning"), rows)


def _default(spec: Spec) -> str:
    if isinstance(spec.default, Parameter.Type):
        return ""
    if isinstance(spec.default, list):
        return ", ".join(map(str, spec.default))
    return str(spec.default).lower() if isinstance(spec.default, bool) else str(spec.default)


def _when(spec: Spec) -> str:
    if spec.is_read_only:
        return "at start-up only"
    return "while it runs" if spec.can_change else "while unconfigured"


def message(name: str) -> str:
    """Return the definition of a message, with its comments."""
    return f"```text\n{(ROOT / 'msg' / f'{name}.msg').read_text().strip()}\n```"


def command_line() -> str:
    """Return a section for each command, with a table of its arguments."""
    return "\n\n".join(
        f"## {name}\n\n{parser.description}\n\n"
        + (_arguments(parser) if len(parser._actions) > 1 else f"Usage: `{parser.epilog}`")
        for name, parser in _commands()
    )


def export_arguments() -> str:
    """Return a table of the arguments of `export`."""
    return _arguments(dict(_commands())["export"])


def _commands() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    # argparse has no public way to list the commands and arguments of a parser.
    (commands,) = (a for a in cli.make_parser()._actions if isinstance(a, argparse._SubParsersAction))
    for action in commands._choices_actions:
        parser = commands.choices[action.dest]
        text = (parser.description or action.help or "").rstrip(".")
        parser.description = f"{text[0].upper()}{text[1:]}."
        yield action.dest, parser


def _arguments(parser: argparse.ArgumentParser) -> str:
    actions = (action for action in parser._actions if not isinstance(action, argparse._HelpAction))
    rows = [(f"`{_usage(action)}`", marked(action.help or "")) for action in actions]
    return table(("argument", "meaning"), rows)


def _usage(action: argparse.Action) -> str:
    value = "" if action.nargs == 0 else str(action.metavar or action.dest.upper())
    value = {"+": f"{value} [{value} ...]", "?": f"[{value}]"}.get(str(action.nargs), value)
    return f"{', '.join(action.option_strings)} {value}".strip()


def models() -> str:
    """Return a table of the models with licences and pose figures from bench/results/pose.md."""
    lines = (ROOT / "bench/results/pose.md").read_text().splitlines()
    cells = ([cell.strip() for cell in line.split("|")] for line in lines if line.count("|") > 5)
    poses = {(line[1], line[2]): line[6].split(" ±")[0] for line in cells}
    rows = []
    for spec in MODELS.values():
        found = [poses.get((spec.name, variant), "") for variant in ("original", "fp32", "fp16")]
        measured = ", ".join(found) if all(found) else "not measured"
        rows.append((f"`{spec.name}`", marked(spec.description), spec.licence, measured))
    return table(("model", "what", "licence of the weights", "pose AUC at 5°: original, fp32, fp16"), rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
