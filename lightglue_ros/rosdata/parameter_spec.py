"""Declarations of parameters as fields of dataclasses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from lightglue_ros.errors import ConfigError


@dataclass(frozen=True)
class Spec:
    """Declaration of a parameter.

    Attributes:
        default: value that also gives the type; rclpy's constant for a list of strings without a default.
        description: text that `ros2 param describe` prints.
        limits: (lowest, highest) value of a number.
        choices: allowed values of a string.
        can_change: True if it can be set while the node runs, False if only in the state unconfigured.
        is_read_only: True if it can only be given at start-up.
    """

    default: Any
    description: str
    limits: tuple[float, float] | None = None
    choices: Sequence[str] = ()
    can_change: bool = False
    is_read_only: bool = False

    @property
    def allowed(self) -> str:
        """Description of the allowed values."""
        if self.choices:
            return ", ".join(self.choices)
        if self.limits:
            least, most = (format(limit, "d" if isinstance(limit, int) else "g") for limit in self.limits)
            return f"{self.type_name} from {least} to {most}"
        return self.type_name

    @property
    def type_name(self) -> str:
        """Name of the type."""
        if isinstance(self.default, list):
            return f"a list of {type(self.default[0]).__name__}"
        is_value = isinstance(self.default, (bool, int, float, str))
        return type(self.default).__name__ if is_value else "a list of str"

    @property
    def example(self) -> str:
        """Default value in YAML."""
        if isinstance(self.default, list):
            return f"[{', '.join(map(str, self.default))}]"
        return str(self.default)

    def check(self, name: str, value: Any) -> None:
        """Check type, limits and choices, as ROS does for a running node.

        Raises:
            ConfigError: the value is not allowed.
        """
        is_list = isinstance(self.default, list)
        kind = type(self.default[0] if is_list else self.default)
        values = value if is_list else [value]
        is_allowed = (
            isinstance(values, list)
            and all(type(one) is kind for one in values)
            and (not self.limits or self.limits[0] <= value <= self.limits[1])
            and (not self.choices or value in self.choices)
        )
        if not is_allowed:
            example = f"for example {name}: {self.example}"
            raise ConfigError(f"parameter {name} is {value!r}", allowed=self.allowed, fix=example)


def parameter(default: Any, description: str, **options: Any) -> Any:
    """Declare a parameter as a field of a dataclass; the arguments are those of `Spec`."""
    metadata = {"spec": Spec(default, description, **options)}
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def specs_of(kind: type) -> dict[str, Spec]:
    """Return the declarations of the parameters of a dataclass, by their names."""
    return {it.name: it.metadata["spec"] for it in fields(kind)}
