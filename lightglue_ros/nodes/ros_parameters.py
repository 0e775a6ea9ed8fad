"""Declares the parameters of the nodes with ROS and reads them back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import (
    InvalidParameterTypeException,
    InvalidParameterValueException,
    InvalidTopicNameException,
    ParameterException,
    ParameterUninitializedException,
)
from rclpy.expand_topic_name import expand_topic_name
from rclpy.node import Node
from rclpy.validate_full_topic_name import validate_full_topic_name

from lightglue_ros.core import ConfigError
from lightglue_ros.nodes import annotations
from lightglue_ros.rosdata.parameters import SPECS, CameraParameters, MatcherParameters, P, Spec, collect


def declare(node: Node, kind: type[CameraParameters], read_only: bool = False) -> None:
    """Declare the parameters of a node.

    Args:
        node: that gets them.
        kind: its parameters.
        read_only: none of them can change.

    Raises:
        ConfigError: a value given at start-up has the wrong type or is out of range.
    """
    for name in (field.name for field in fields(kind)):
        spec = SPECS[name]
        try:
            declare_one(node, name, replace(spec, is_read_only=read_only or spec.is_read_only))
        except (InvalidParameterTypeException, InvalidParameterValueException, ParameterException) as error:
            raise ConfigError(
                f"parameter {name}: {error}",
                allowed=spec.allowed,
                fix=f"for example {name}: {spec.default}",
            ) from error


def read(node: Node, kind: type[P], changes: Mapping[str, Any] | None = None) -> P:
    """Read the parameters of a node and check what a range cannot.

    Args:
        node: that declared them.
        kind: its parameters.
        changes: values that are to be set, in place of those that are.

    Raises:
        ConfigError: a value is none of the choices, or the values do not fit each other.
    """
    present = {f.name: _value(node, f.name) for f in fields(kind)}
    values = collect(kind, present | dict(changes or {}))
    if isinstance(values, MatcherParameters):
        if values.publish_annotations:
            annotations.message_type()
        for topic in (*values.features_topics, *values.annotation_topics):
            _check_topic(node, topic, "cameras makes the topic", "cameras: [left, right]")
        for topic in values.given_camera_info_topics:
            fix = "camera_info_topics: [left/camera_info, right/camera_info]"
            _check_topic(node, topic, "camera_info_topics has", fix)
        if values.takes_features and values.verification != "essential":
            return values
    for topic in values.image_topics:
        _check_topic(node, topic, "image_topics has", "image_topics: [left/image_rect, right/image_rect]")
    return values


def _check_topic(node: Node, topic: str, what: str, fix: str) -> None:
    try:
        expanded = expand_topic_name(topic, node.get_name(), node.get_namespace())
        validate_full_topic_name(expanded)
    except (InvalidTopicNameException, ValueError) as error:
        raise ConfigError(
            f"parameter {what} '{topic}' ({' '.join(str(error).split())})",
            allowed="names of letters, digits, '_' and '/', relative or absolute",
            fix=fix,
        ) from error


def _value(node: Node, name: str) -> Any:
    try:
        return node.get_parameter(name).value
    except ParameterUninitializedException:  # what an empty list is to ROS, which does not know its type
        return []


def declare_one(node: Node, name: str, spec: Spec) -> Any:
    """Declare a parameter and return its value; None where it has no default and none is given.

    Raises:
        ParameterException: a value given at start-up has the wrong type or is out of range.
    """
    return node.declare_parameter(name, spec.default, _descriptor(spec)).value


def _descriptor(spec: Spec) -> ParameterDescriptor:
    when = "while the node runs" if spec.can_change else "in the state unconfigured"
    descriptor = ParameterDescriptor(
        description=spec.description,
        additional_constraints=f"{spec.allowed}; "
        + ("cannot change" if spec.is_read_only else f"can change {when}"),
        read_only=spec.is_read_only,
    )
    if spec.limits and isinstance(spec.default, int):
        least, most = spec.limits
        descriptor.integer_range = [IntegerRange(from_value=int(least), to_value=int(most), step=1)]
    elif spec.limits:
        least, most = spec.limits
        descriptor.floating_point_range = [FloatingPointRange(from_value=least, to_value=most)]
    return descriptor
