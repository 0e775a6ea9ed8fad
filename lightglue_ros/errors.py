"""Errors that a user can act on.

Each carries one line that says what was wrong, what is allowed and the command or setting that mends it.
"""

from __future__ import annotations


class LightGlueRosError(Exception):
    """Base of all errors that this package raises on purpose. Its text is one line.

    Args:
        what: what was found, with the value that was found.
        allowed: what would have been accepted.
        fix: the command or the setting that mends it.

    Attributes:
        what: as it was given, for an error that another one goes on from.
    """

    def __init__(self, what: str, *, allowed: str = "", fix: str = "") -> None:
        self.what = what
        parts = [what]
        if allowed:
            parts.append(f"allowed: {allowed}")
        if fix:
            parts.append(f"to mend it: {fix}")
        super().__init__("; ".join(" ".join(part.split()) for part in parts))


class ConfigError(LightGlueRosError):
    """A parameter or argument has a value that cannot be used."""


class ImageError(LightGlueRosError):
    """An image or image message cannot be used."""


class ModelError(LightGlueRosError):
    """A model file is missing, broken or not one of ours."""


class ProviderError(LightGlueRosError):
    """An execution provider that was asked for by name did not load."""
