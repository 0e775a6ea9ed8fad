"""Checks on the files that a command is going to write."""

from __future__ import annotations

from pathlib import Path

from lightglue_ros.errors import ConfigError


def require_parent_folder(path: Path) -> None:
    """Raise a ConfigError if the folder that an output goes to is missing."""
    if not path.expanduser().absolute().parent.is_dir():
        raise ConfigError(f"cannot write {path}: there is no folder {path.parent}", fix="make it first")
