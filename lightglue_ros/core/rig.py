"""Which cameras a robot has, and which pairs of them are matched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightglue_ros.core.errors import ConfigError


@dataclass(frozen=True)
class Rig:
    """N named cameras and P pairs of them.

    Attributes:
        cameras: their names; a camera's slot in a batch is its place here.
        pairs: (first, second), indices into `cameras`.
    """

    cameras: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]

    @classmethod
    def parse(cls, cameras: Sequence[str], pairs: Sequence[str]) -> Rig:
        """Build a rig from names and from pairs written as ``first:second``.

        Raises:
            ConfigError: a name is empty, has a colon or is there twice, or a pair names no two cameras.
        """
        names = tuple(cameras)
        for name in names:
            if not name or ":" in name or "@" in name:
                raise ConfigError(
                    f"parameter cameras has the name '{name}'",
                    allowed="names that are not empty, without ':' and '@'",
                )
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(
                f"parameter cameras names '{twice[0]}' more than once ({', '.join(names)})",
                allowed="each camera once",
                fix="give every camera a name of its own, for example cameras: [left, right]",
            )
        if not names:
            raise ConfigError(
                "parameter cameras is empty", allowed="at least one name", fix="cameras: [left, right]"
            )
        indices = tuple(_parse_pair(pair, names) for pair in pairs)
        if not indices:
            raise ConfigError(
                "parameter pairs is empty", allowed="at least one 'first:second'", fix=_example(names)
            )
        return cls(names, indices)


def _parse_pair(pair: str, cameras: tuple[str, ...]) -> tuple[int, int]:
    names = pair.split(":")
    if len(names) != 2 or any(name not in cameras for name in names) or names[0] == names[1]:
        raise ConfigError(
            f"parameter pairs has '{pair}'",
            allowed=f"first:second with two of the cameras {', '.join(cameras)}",
            fix=_example(cameras),
        )
    return cameras.index(names[0]), cameras.index(names[1])


def _example(cameras: tuple[str, ...]) -> str:
    first, second = (*cameras, "left", "right")[:2] if len(cameras) > 1 else ("left", "right")
    return f'pairs: ["{first}:{second}"]'
