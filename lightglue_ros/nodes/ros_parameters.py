"""Declares the parameters of a node with ROS and reads their values."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import (
    InvalidTopicNameException,
    ParameterException,
    ParameterUninitializedException,
)
from rclpy.expand_topic_name import expand_topic_name
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.validate_full_topic_name import validate_full_topic_name

from lightglue_ros.errors import ConfigError
from lightglue_ros.rosdata.camera_parameters import CameraParameters
from lightglue_ros.rosdata.parameter_spec import Spec, specs_of
from lightglue_ros.rosdata.parameters import SPECS, P


def declare(node: Node, kind: type[CameraParameters], read_only: bool = False) -> None:
    """Declare the parameters of a node; with `read_only` none of them can change.

    Raises:
        ConfigError: a value given at start-up has the wrong type or is out of range.
    """
    declare_all(
        node,
        {
            name: replace(spec, is_read_only=read_only or spec.is_read_only)
            for name, spec in specs_of(kind).items()
        },
    )


def declare_all(node: Node, specs: Mapping[str, Spec]) -> dict[str, Any]:
    """Declare all parameters of a node and return their values; log those that the node does not have.

    Raises:
        ConfigError: a value given at start-up has the wrong type or is out of range.
    """
    values = {name: declare_one(node, name, spec) for name, spec in specs.items()}
    _warn_of_unknown(node, {*SPECS, *specs})
    return values


def _warn_of_unknown(node: Node, names: Collection[str]) -> None:
    """Log the parameters that were given at start-up and that the node does not have; ROS ignores them."""
    given = getattr(node, "_parameter_overrides", {})  # rclpy has no public access to them
    # Any node may be given the matcher's parameters: several are started with one file.
    unknown = [
        name
        for name in given
        if name not in names and not node.has_parameter(name) and not name.startswith("qos_overrides.")
    ]
    texts = [
        f"{name} (did you mean {near[0]}?)" if (near := get_close_matches(name, sorted(names), 1)) else name
        for name in sorted(unknown)
    ]
    if texts:
        node.get_logger().warning(
            f"parameters that this node does not have are ignored: {', '.join(texts)}; "
            f"fix: ros2 param list {node.get_fully_qualified_name()} prints their names"
        )


def declare_one(node: Node, name: str, spec: Spec) -> Any:
    """Declare a parameter and return its value; None if it has neither a default nor a value.

    Raises:
        ConfigError: a value given at start-up has the wrong type or is out of range.
    """
    try:
        return node.declare_parameter(name, spec.default, _descriptor(spec)).value
    except ParameterException:
        # rclpy tells the value that was given only if the parameter may have any type.
        given = node.declare_parameter(name, None, ParameterDescriptor(dynamic_typing=True)).value
        node.undeclare_parameter(name)
        value = spec.converted(plain(given))
        spec.check(name, value)
        return node.declare_parameter(name, value, _descriptor(spec), ignore_override=True).value


def checked(changes: Sequence[Parameter]) -> list[Parameter]:
    """Check values about to be set; turn whole numbers into floats where the type is double.

    Raises:
        ConfigError: a value is not allowed. rclpy would name types by numbers.
    """
    return [_checked(it, SPECS[it.name]) if it.name in SPECS else it for it in changes]


def _checked(change: Parameter, spec: Spec) -> Parameter:
    value = spec.converted(plain(change.value))
    spec.check(change.name, value)
    return Parameter(change.name, Parameter.Type[spec.type_name.upper()], value)


def read(node: Node, kind: type[P], changes: Mapping[str, Any] | None = None) -> P:
    """Read the declared parameters of a node; `changes` are values about to be set.

    Raises:
        ConfigError: a value is not allowed, or the values do not fit each other.
    """
    present = {name: _value(node, name) for name in specs_of(kind)}
    values = kind(**{name: plain(value) for name, value in (present | dict(changes or {})).items()})
    for name, value, topic in values.named_topics:
        try:
            validate_full_topic_name(expand_topic_name(topic, node.get_name(), node.get_namespace()))
        except (InvalidTopicNameException, ValueError) as error:
            example = specs_of(kind)[name].example
            if name == "camera_info_topics":  # its default is empty
                example = "[left/camera_info, right/camera_info]"
            raise ConfigError(
                f"parameter {name} has '{value}' ({error})",
                allowed="names of letters, digits, '_' and '/', relative or absolute",
                fix=f"for example {name}: {example}",
            ) from error
    return values


def plain(value: Any) -> Any:
    """Turn ROS's kinds of lists into lists."""
    return list(value) if isinstance(value, (array, tuple)) else value


def _value(node: Node, name: str) -> Any:
    try:
        return node.get_parameter(name).value
    except ParameterUninitializedException:  # rclpy's answer for an empty list, whose type it does not know
        return []


def _descriptor(spec: Spec) -> ParameterDescriptor:
    when = "can change while the node runs" if spec.can_change else "can change in the state unconfigured"
    when = "cannot change" if spec.is_read_only else when
    descriptor = ParameterDescriptor(description=spec.description, read_only=spec.is_read_only)
    descriptor.additional_constraints = f"{spec.allowed}; {when}"
    if spec.limits:
        least, most = spec.limits
        if isinstance(spec.default, int):
            descriptor.integer_range = [IntegerRange(from_value=least, to_value=most, step=1)]
        else:
            descriptor.floating_point_range = [FloatingPointRange(from_value=least, to_value=most)]
    return descriptor
