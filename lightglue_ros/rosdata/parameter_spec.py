"""Declarations of parameters as fields of dataclasses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

from lightglue_ros.errors import ConfigError

ROS_TYPES = {bool: "bool", int: "integer", float: "double", str: "string"}


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
        """ROS's name of the type, such as double or string_array."""
        return ROS_TYPES[self._kind] + ("_array" if self._is_list else "")

    @property
    def _is_list(self) -> bool:
        return isinstance(self.default, (list, Enum))

    @property
    def _kind(self) -> type:
        """Python type of the value, or of the items of a list."""
        if isinstance(self.default, Enum):
            return str
        return type(self.default[0] if self._is_list else self.default)

    @property
    def example(self) -> str:
        """Default value in YAML."""
        if self._is_list:
            items = ["a", "b"] if isinstance(self.default, Enum) else self.default
            return f"[{', '.join(map(str, items))}]"
        return str(self.default)

    def converted(self, value: Any) -> Any:
        """Turn whole numbers into floats if the type is double, because people write 1 for 1.0."""
        if self._kind is not float:
            return value
        if isinstance(value, list):
            return [float(item) if type(item) is int else item for item in value]
        return float(value) if type(value) is int else value

    def check(self, name: str, value: Any) -> None:
        """Check type, limits and choices, as ROS does for a running node.

        Raises:
            ConfigError: the value is not allowed.
        """
        values = value if self._is_list else [value]
        is_allowed = (
            isinstance(values, list)
            and all(type(one) is self._kind for one in values)
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
