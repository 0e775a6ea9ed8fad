"""Reads the matcher's parameters from a ROS parameter file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightglue_ros.errors import ConfigError
from lightglue_ros.rosdata.parameters import SPECS, MatcherParameters


def read_file(path: Path | None, changes: Sequence[str] = ()) -> MatcherParameters:
    """Read the matcher's parameters from a file, as ROS reads it for the node /matcher.

    Args:
        path: parameters that are missing in the file, or all without a file, have their defaults.
        changes: values that replace the file's, each as `name:=value` with a value in YAML.

    Raises:
        ConfigError: the file cannot be read, a value is not allowed, or the values do not fit each other.
    """
    given = {} if path is None else parameters_of(path)
    return parameters_from(given | parse_changes(changes))


def parameters_from(values: Mapping[str, Any]) -> MatcherParameters:
    """Check values, such as those of a file, and return the parameters; what is missing has its default.

    Raises:
        ConfigError: a value is not allowed, or the values do not fit each other.
    """
    return MatcherParameters(**{name: SPECS[name].converted(value) for name, value in values.items()})


def parse_changes(texts: Sequence[str]) -> dict[str, Any]:
    """Parse values, each `name:=value` with a value in YAML, without checking them.

    Raises:
        ConfigError: a text is no such value, or the matcher has no parameter of its name.
    """
    return dict(map(_change, texts))


def parameters_of(path: Path) -> dict[str, Any]:
    """Return the matcher's parameters in a file, without checking their values.

    Raises:
        ConfigError: the file cannot be read, or has no parameters of the matcher.
    """
    try:
        text = path.expanduser().read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"parameter file {path} cannot be read ({error})", fix="check the path") from error
    content = _yaml(text, f"parameter file {path}")
    sections = list(_sections(content))
    if not sections:
        raise ConfigError(
            f"parameter file {path} has no parameters of the node /matcher",
            allowed="/** or matcher, with ros__parameters below",
            fix="begin with a copy of config/matcher.yaml",
        )
    # The file may have parameters of other nodes as well, which ROS ignores.
    return {name: value for section in sections for name, value in section.items() if name in SPECS}


def _sections(content: Any) -> Iterator[dict[str, Any]]:
    """Find the parameters in each part of a file that is for the node, in any namespace."""
    for name, below in content.items() if isinstance(content, dict) else ():
        if not isinstance(below, dict):
            continue
        parameters = below.get("ros__parameters")
        if str(name).split("/")[-1] in ("**", "*", "matcher") and isinstance(parameters, dict):
            yield parameters
        elif parameters is None:
            yield from _sections(below)


def _change(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition(":=")
    if not sign or name not in SPECS:
        allowed = f"name:=value with a name of {', '.join(SPECS)}"
        raise ConfigError(f"'{text}' sets no parameter", allowed=allowed)
    return name, _yaml(value, f"the value of '{text}'")


def _yaml(text: str, what: str) -> Any:
    """Parse YAML. If it is broken, the error names `what`, the line and the reason."""
    try:
        import yaml
    except ImportError as missing:
        what = f"reading parameters needs the Python package yaml ({missing})"
        raise ConfigError(what, fix="pip install pyyaml") from missing
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise ConfigError(
            f"{what} is no YAML ({where}{problem or 'a character is not allowed'})",
            fix="close every bracket and quote, and indent with spaces",
        ) from error
