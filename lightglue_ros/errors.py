"""Errors that a user can act on. The text is one line: what was found, what is allowed, and the fix."""

from __future__ import annotations

from typing import Any


class LightGlueRosError(Exception):
    """Base class of all errors that this package raises on purpose.

    Args:
        what: what was found, with its value.
        allowed: what would have been accepted.
        fix: the command or the setting that solves the problem.

    Attributes:
        what: the argument of that name, so that another error can quote it.
    """

    def __init__(self, what: str, *, allowed: str = "", fix: str = "") -> None:
        self.what = what
        parts = [what]
        if allowed:
            parts.append(f"allowed: {allowed}")
        if fix:
            parts.append(f"fix: {fix}")
        super().__init__("; ".join(" ".join(part.split()) for part in parts))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without calling __init__ again, whose arguments are not those that an exception keeps."""
        return Exception.__new__, (type(self), *self.args), self.__dict__


class ConfigError(LightGlueRosError):
    """A parameter or argument has a value that cannot be used."""


class ImageError(LightGlueRosError):
    """An image or image message cannot be used."""


class RejectedImageError(ImageError):
    """An image that cannot be used, with a cause that can be counted.

    Args:
        cause: a short key to count it under, such as ``short_data``.
        what: see `LightGlueRosError`.
        allowed: see `LightGlueRosError`.
        fix: see `LightGlueRosError`.
    """

    def __init__(self, cause: str, what: str, *, allowed: str = "", fix: str = "") -> None:
        super().__init__(what, allowed=allowed, fix=fix)
        self.cause = cause


class ModelError(LightGlueRosError):
    """A model file is missing, broken or not an export of this package."""


class ProviderError(LightGlueRosError):
    """An execution provider that was asked for by name did not load."""
