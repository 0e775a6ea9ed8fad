"""The parameters of matcher and viewer: what each is, what it may be, and when it can change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

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
from lightglue_ros.core.contract import EXTRACTOR, MATCHER
from lightglue_ros.core.normalise import NORMALISATIONS, Normalisation
from lightglue_ros.core.session import PROVIDERS
from lightglue_ros.nodes.decoding import TRANSPORTS
from lightglue_ros.nodes.features import PRECISIONS, topic_of
from lightglue_ros.nodes.qos import IMAGE_QOS

INPUTS = ("images", "features")


@dataclass(frozen=True)
class Spec:
    """One parameter.

    Attributes:
        default: also says its type.
        description: what `ros2 param describe` prints.
        limits: (least, most) of a number.
        choices: the values that a text may have.
        can_change: whether it can be set while the node runs; the others can in the state unconfigured.
    """

    default: Any
    description: str
    limits: tuple[float, float] | None = None
    choices: Sequence[str] = ()
    can_change: bool = False


SPECS: dict[str, Spec] = {
    "cameras": Spec(["left", "right"], "Names of the cameras, in the order of image_topics."),
    "image_topics": Spec(
        ["left/image_rect", "right/image_rect"],
        "Topic of each camera's images (sensor_msgs/Image), remappable.",
    ),
    "input": Spec(
        "images",
        f"What comes from the cameras: {', '.join(INPUTS)}; features are those of extractors elsewhere, on "
        "the topics features/CAMERA.",
        choices=INPUTS,
    ),
    "image_transport": Spec(
        "raw",
        f"How images come: {', '.join(TRANSPORTS)}; compressed is JPEG or PNG on TOPIC/compressed.",
        choices=TRANSPORTS,
    ),
    "max_image_pixels": Spec(
        4096 * 4096,
        "A compressed image that claims more pixels is refused before it is decoded.",
        limits=(1, 2**30),
    ),
    "mono16_normalisation": Spec(
        "percentile",
        f"How 16-bit images become 8-bit: {', '.join(NORMALISATIONS)}; percentile is each image's own range.",
        choices=NORMALISATIONS,
    ),
    "mono16_range": Spec(
        [0, 65535], "The 16-bit values that become black and white with mono16_normalisation fixed."
    ),
    "mono16_percentiles": Spec(
        [1.0, 99.0],
        "The percentiles of a 16-bit image's values that become black and white with percentile.",
    ),
    "pairs": Spec(
        ["left:right"],
        "Which images to match with each other: 'first:second', or through time 'left@-1:left' for a camera "
        "and the same one frame before.",
        can_change=True,
    ),
    "publish_matches": Spec(
        True, "Match and publish; false with publish_features: extract only, whatever the pairs are."
    ),
    "publish_features": Spec(
        False, "Publish the features of each image on features/CAMERA, for a matcher elsewhere."
    ),
    "features_precision": Spec(
        "fp32",
        f"Of the descriptors in published features: {', '.join(PRECISIONS)}; fp16 is half the bytes.",
        choices=PRECISIONS,
    ),
    "model": Spec(
        "xfeat", "Model: a name in the model store, or a folder with extractor.onnx and matcher.onnx."
    ),
    "provider": Spec(
        "auto",
        f"Where the model runs: {', '.join(PROVIDERS)}; auto is cuda where it loads.",
        choices=PROVIDERS,
    ),
    "allow_fallback": Spec(False, "Take the CPU where a provider asked for by name does not load."),
    "num_threads": Spec(0, "Threads of the CPU provider; 0 is one per core.", limits=(0, 256)),
    "image_width": Spec(
        640,
        "Images are shrunk to this width before extraction (pixels), never enlarged.",
        limits=(32, 8192),
        can_change=True,
    ),
    "image_height": Spec(
        480,
        "Images are shrunk to this height before extraction (pixels), never enlarged.",
        limits=(32, 8192),
        can_change=True,
    ),
    "max_keypoints": Spec(
        0, "Most keypoints per image; 0 is all the slots of the model.", limits=(0, 65536), can_change=True
    ),
    "match_threshold": Spec(0.1, "Least score of a match.", limits=(0.0, 1.0), can_change=True),
    "sync_slop": Spec(
        0.0,
        "Largest time between the images of one frame (s); 0 is 0.45 of the fastest camera's period.",
        limits=(0.0, 10.0),
        can_change=True,
    ),
    "camera_timeout": Spec(
        1.0,
        "A camera that the others waited for so long (s) is missing: frames go on until it is back.",
        limits=(0.01, 3600.0),
        can_change=True,
    ),
    "image_qos": Spec(
        "sensor_data",
        f"Quality of service of the image subscriptions: {', '.join(IMAGE_QOS)}.",
        choices=IMAGE_QOS,
    ),
    "drawing_rate": Spec(
        5.0,
        "Most pictures per second on matches/image, drawn only while somebody subscribes; 0 is none.",
        limits=(0.0, 100.0),
        can_change=True,
    ),
    "autostart": Spec(True, "Configure and activate at start-up; else wait for a lifecycle manager."),
}


@dataclass(frozen=True)
class CameraParameters:
    """The values of the parameters that the viewer has, too; see `SPECS` for their meaning."""

    cameras: list[str]
    image_topics: list[str]
    image_transport: str
    max_image_pixels: int
    mono16_normalisation: str
    mono16_range: list[int]
    mono16_percentiles: list[float]
    image_qos: str
    drawing_rate: float

    @property
    def normalisation(self) -> Normalisation:
        """How 16-bit images become 8-bit ones.

        Raises:
            ConfigError: the values do not fit each other.
        """
        return Normalisation(
            self.mono16_normalisation, tuple(self.mono16_range), tuple(self.mono16_percentiles)
        )


@dataclass(frozen=True)
class MatcherParameters(CameraParameters):
    """The values of the matcher's parameters; see `SPECS` for their meaning."""

    input: str
    pairs: list[str]
    publish_matches: bool
    publish_features: bool
    features_precision: str
    model: str
    provider: str
    allow_fallback: bool
    num_threads: int
    image_width: int
    image_height: int
    max_keypoints: int
    match_threshold: float
    sync_slop: float
    camera_timeout: float
    autostart: bool

    @property
    def takes_features(self) -> bool:
        """Whether features come in place of images."""
        return self.input == "features"

    @property
    def only_graph(self) -> str | None:
        """The one graph of the model that is run here; None where both are."""
        if self.takes_features:
            return MATCHER
        return None if self.publish_matches else EXTRACTOR

    @property
    def features_topics(self) -> list[str]:
        """The topic of each camera's features; none where neither features come nor are published."""
        has_features = self.takes_features or self.publish_features
        return [topic_of(camera) for camera in self.cameras] if has_features else []

    @property
    def input_topics(self) -> list[str]:
        """The topic of what comes from each camera."""
        return self.features_topics if self.takes_features else self.image_topics


P = TypeVar("P", bound=CameraParameters)


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
            node.declare_parameter(
                name, spec.default, _descriptor(spec, is_read_only=read_only or name == "autostart")
            )
        except (InvalidParameterTypeException, InvalidParameterValueException, ParameterException) as error:
            raise ConfigError(
                f"parameter {name}: {error}",
                allowed=_allowed(spec),
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
    values = kind(**(present | {name: _listed(value) for name, value in (changes or {}).items()}))
    check_each(asdict(values))
    if isinstance(values, MatcherParameters):
        _check_work(values)
        for topic in values.features_topics:
            _check_topic(node, topic, "cameras makes the topic", "cameras: [left, right]")
        if values.takes_features:
            return values
    _check_image_topics(node, values)
    return values


def _check_work(values: MatcherParameters) -> None:
    if values.takes_features and values.publish_features:
        raise ConfigError(
            "parameter publish_features is true and input is features: nothing is extracted here",
            allowed="one of the two",
            fix="publish_features: false, or input: images",
        )
    if not values.publish_matches and not values.publish_features:
        raise ConfigError(
            "parameters publish_matches and publish_features are both false: there is nothing to do",
            allowed="at least one of them true",
            fix="publish_matches: true to match, publish_features: true to extract only",
        )
    if not values.pairs and values.publish_matches:
        raise ConfigError(
            "parameter pairs is empty",
            allowed="at least one 'first:second'",
            fix='pairs: ["left:right"], or publish_matches: false to extract only',
        )


def _check_image_topics(node: Node, values: CameraParameters) -> None:
    if len(values.cameras) != len(values.image_topics):
        raise ConfigError(
            f"parameter image_topics has {len(values.image_topics)} topics for {len(values.cameras)} cameras",
            allowed="one topic for each camera, in the same order",
            fix="cameras: [left, right] and image_topics: [left/image_rect, right/image_rect]",
        )
    for topic in values.image_topics:
        _check_topic(node, topic, "image_topics has", "image_topics: [left/image_rect, right/image_rect]")


def check_each(values: Mapping[str, Any]) -> None:
    """Check each value by itself; limits of numbers are checked by ROS.

    Raises:
        ConfigError: one is none of the choices.
    """
    for name, value in values.items():
        spec = SPECS[name]
        if spec.choices and value not in spec.choices:
            raise ConfigError(
                f"parameter {name} is '{value}'", allowed=_allowed(spec), fix=f"{name}: {spec.default}"
            )


def check_changeable(present: MatcherParameters, changes: Mapping[str, Any]) -> None:
    """Check that only parameters change that can while the node runs.

    Raises:
        ConfigError: another one would change.
    """
    for name, value in changes.items():
        if not SPECS[name].can_change and _listed(value) != getattr(present, name):
            raise ConfigError(
                f"parameter {name} cannot change while the node runs",
                allowed=", ".join(name for name, spec in SPECS.items() if spec.can_change),
                fix="ros2 lifecycle set /matcher deactivate, the same with cleanup, and then set it",
            )


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
        return _listed(node.get_parameter(name).value)
    except ParameterUninitializedException:  # what an empty list is to ROS, which does not know its type
        return []


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def _descriptor(spec: Spec, is_read_only: bool) -> ParameterDescriptor:
    when = "while the node runs" if spec.can_change else "in the state unconfigured"
    descriptor = ParameterDescriptor(
        description=spec.description,
        additional_constraints=f"{_allowed(spec)}; "
        + ("cannot change" if is_read_only else f"can change {when}"),
        read_only=is_read_only,
    )
    if spec.limits and isinstance(spec.default, int):
        least, most = spec.limits
        descriptor.integer_range = [IntegerRange(from_value=int(least), to_value=int(most), step=1)]
    elif spec.limits:
        least, most = spec.limits
        descriptor.floating_point_range = [FloatingPointRange(from_value=least, to_value=most)]
    return descriptor


def _allowed(spec: Spec) -> str:
    if spec.choices:
        return ", ".join(spec.choices)
    if spec.limits:
        return f"{type(spec.default).__name__} from {spec.limits[0]:g} to {spec.limits[1]:g}"
    if isinstance(spec.default, list):
        return f"a list of {type(spec.default[0]).__name__}"
    return type(spec.default).__name__
