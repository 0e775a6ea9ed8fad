"""The parameters of matcher and viewer: what each is, what it may be, and when it can change.

They come from a running ROS node or from a parameter file, and mean the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from lightglue_ros.core.contract import EXTRACTOR, MATCHER
from lightglue_ros.core.mono16 import MONO16_NORMALISATIONS, Mono16Range
from lightglue_ros.core.pipeline import MatchPipeline
from lightglue_ros.core.session import PROVIDERS
from lightglue_ros.errors import ConfigError
from lightglue_ros.rig.frame import FrameSettings
from lightglue_ros.rig.rig import Rig
from lightglue_ros.rig.verification import GEOMETRIES
from lightglue_ros.rosdata.decoding import TRANSPORTS

IMAGE_QOS = ("sensor_data", "reliable")
PRECISIONS = ("fp32", "fp16")
INPUTS = ("images", "features")
VERIFICATIONS = ("none", *GEOMETRIES)


def features_topic(camera: str) -> str:
    """The topic of a camera's features."""
    return f"features/{camera}"


def annotations_topic(camera: str) -> str:
    """The topic of a camera's annotations."""
    return f"matches/annotations/{camera}"


@dataclass(frozen=True)
class Spec:
    """One parameter.

    Attributes:
        default: also says its type; rclpy's name of a list of texts where there is none.
        description: what `ros2 param describe` prints.
        limits: (least, most) of a number.
        choices: the values that a text may have.
        can_change: whether it can be set while the node runs; the others can in the state unconfigured.
        is_read_only: whether it can be given at start-up only.
    """

    default: Any
    description: str
    limits: tuple[float, float] | None = None
    choices: Sequence[str] = ()
    can_change: bool = False
    is_read_only: bool = False

    @property
    def allowed(self) -> str:
        """The values that it may have."""
        if self.choices:
            return ", ".join(self.choices)
        if self.limits:
            least, most = (format(limit, "d" if isinstance(limit, int) else "g") for limit in self.limits)
            return f"{self.type_name} from {least} to {most}"
        return self.type_name

    @property
    def type_name(self) -> str:
        """The type of its value."""
        if type(self.default) not in (bool, int, float, str, list):
            return "a list of str"
        if isinstance(self.default, list):
            return f"a list of {type(self.default[0]).__name__}"
        return type(self.default).__name__


SPECS: dict[str, Spec] = {
    "cameras": Spec(["left", "right"], "Names of the cameras, 1 to 8, in the order of image_topics."),
    "image_topics": Spec(
        ["left/image_rect", "right/image_rect"],
        "Topic of each camera's images (sensor_msgs/Image), remappable.",
    ),
    "input": Spec(
        "images",
        "What comes from the cameras; features are those of extractors on other computers, on the topics "
        "features/CAMERA.",
        choices=INPUTS,
    ),
    "image_transport": Spec(
        "raw",
        "How images come; compressed is JPEG or PNG on IMAGE_TOPIC/compressed.",
        choices=TRANSPORTS,
    ),
    "max_image_pixels": Spec(
        4096 * 4096,
        "A compressed image that claims more pixels is refused before it is decoded.",
        limits=(1, 2**30),
    ),
    "mono16_normalisation": Spec(
        "percentile",
        "How 16-bit images become 8-bit: by mono16_percentiles of each image, or by the fixed mono16_range.",
        choices=MONO16_NORMALISATIONS,
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
        "Which images to match with each other: first:second, or through time left@-1:left for a camera and "
        "the same one frame before.",
        can_change=True,
    ),
    "publish_matches": Spec(
        True, "Match and publish; false with publish_features: extract only, whatever the pairs are."
    ),
    "publish_features": Spec(
        False, "Publish the features of each image on features/CAMERA, for a matcher elsewhere."
    ),
    "publish_annotations": Spec(
        False,
        "Publish the matches as foxglove_msgs/ImageAnnotations on matches/annotations/CAMERA, at most "
        "drawing_rate times a second while somebody subscribes; foxglove_msgs must be installed.",
    ),
    "features_precision": Spec(
        "fp32", "Of the descriptors in published features; fp16 is half the bytes.", choices=PRECISIONS
    ),
    "model": Spec(
        "xfeat", "Model: a name in the model store, or a folder with extractor.onnx and matcher.onnx."
    ),
    "provider": Spec(
        "auto",
        "Where the model runs; auto is cuda where it really loads, else cpu; the others by name only.",
        choices=PROVIDERS,
    ),
    "allow_fallback": Spec(False, "Take the CPU where a provider asked for by name does not load."),
    "cuda_graph": Spec(
        False,
        "With provider cuda and a model of fixed shapes: record the first run as a CUDA graph and replay it.",
    ),
    "num_threads": Spec(0, "Threads of the CPU provider; 0 is one a core.", limits=(0, 256)),
    "image_width": Spec(
        640,
        "Images are shrunk to this width before extraction (pixels), never enlarged; it is rounded up to the "
        "model's multiple.",
        limits=(32, 8192),
        can_change=True,
    ),
    "image_height": Spec(480, "The same of the height.", limits=(32, 8192), can_change=True),
    "max_keypoints": Spec(
        0,
        "At most so many keypoints an image; 0 is all the slots of the model.",
        limits=(0, 65536),
        can_change=True,
    ),
    "match_threshold": Spec(0.1, "Least score of a match.", limits=(0.0, 1.0), can_change=True),
    "verification": Spec(
        "none",
        "Geometry that the matches are held against; which of them agree is in matches, and on the pictures. "
        "essential needs CameraInfo.",
        choices=VERIFICATIONS,
        can_change=True,
    ),
    "camera_info_topics": Spec(
        [""],
        "Topic of each camera's sensor_msgs/CameraInfo, subscribed to with verification essential; empty is "
        "camera_info beside each of image_topics. Images whose topic's last name begins with image_rect go "
        "by P, all others by K and D.",
    ),
    "sync_slop": Spec(
        0.0,
        "Largest time between the images of one frame (s); 0 is 0.45 of the fastest camera's period.",
        limits=(0.0, 10.0),
        can_change=True,
    ),
    "camera_timeout": Spec(
        1.0,
        "A camera that the others have waited for so long (s) is missing: frames go on until it is back.",
        limits=(0.01, 3600.0),
        can_change=True,
    ),
    "image_qos": Spec(
        "sensor_data",
        "Quality of service of the image subscriptions; qos_overrides.* change single topics.",
        choices=IMAGE_QOS,
    ),
    "drawing_rate": Spec(
        5.0,
        "Most pictures a second on matches/image, drawn only while somebody subscribes; 0 is none.",
        limits=(0.0, 100.0),
        can_change=True,
    ),
    "autostart": Spec(
        True,
        "Configure and activate at start-up; else a lifecycle manager does it.",
        is_read_only=True,
    ),
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
    def mono16(self) -> Mono16Range:
        """How 16-bit images become 8-bit ones.

        Raises:
            ConfigError: the values do not fit each other.
        """
        return Mono16Range(
            self.mono16_normalisation, tuple(self.mono16_range), tuple(self.mono16_percentiles)
        )


@dataclass(frozen=True)
class MatcherParameters(CameraParameters):
    """The values of the matcher's parameters; see `SPECS` for their meaning."""

    input: str
    pairs: list[str]
    publish_matches: bool
    publish_features: bool
    publish_annotations: bool
    features_precision: str
    model: str
    provider: str
    allow_fallback: bool
    cuda_graph: bool
    num_threads: int
    image_width: int
    image_height: int
    max_keypoints: int
    match_threshold: float
    verification: str
    camera_info_topics: list[str]
    sync_slop: float
    camera_timeout: float
    autostart: bool

    @property
    def takes_features(self) -> bool:
        """Whether features come in place of images."""
        return self.input == "features"

    @property
    def graphs(self) -> tuple[str, ...]:
        """The graphs of the model that this node runs."""
        if self.takes_features:
            return (MATCHER,)
        return (EXTRACTOR, MATCHER) if self.publish_matches else (EXTRACTOR,)

    @property
    def features_topics(self) -> list[str]:
        """The topic of each camera's features; none where neither features come nor are published."""
        has_features = self.takes_features or self.publish_features
        return [features_topic(camera) for camera in self.cameras] if has_features else []

    @property
    def annotation_topics(self) -> list[str]:
        """The topic of each camera's annotations; none where they are not published."""
        return [annotations_topic(camera) for camera in self.cameras] if self.publish_annotations else []

    @property
    def given_camera_info_topics(self) -> list[str]:
        """The topics of CameraInfo that are not the ones beside the images; none where those are meant."""
        return [topic for topic in self.camera_info_topics if topic]

    @property
    def results(self) -> str:
        """Name of what is made of the images."""
        return "matches" if self.publish_matches else "features"

    @property
    def input_topics(self) -> list[str]:
        """The topic of what comes from each camera."""
        return self.features_topics if self.takes_features else self.image_topics


@dataclass(frozen=True)
class MatcherSettings:
    """Settings of a matcher, made from its parameters.

    Attributes:
        values: of the parameters.
        frame: the part of them that a frame is matched with.
    """

    values: MatcherParameters
    frame: FrameSettings

    @classmethod
    def of(cls, values: MatcherParameters) -> MatcherSettings:
        """Make the settings from values of parameters.

        Raises:
            ConfigError: the values do not fit each other.
        """
        frame = FrameSettings(
            rig=Rig.parse(values.cameras, values.pairs if values.publish_matches else []),
            image_size=(values.image_width, values.image_height),
            max_keypoints=values.max_keypoints or None,
            match_threshold=values.match_threshold,
            mono16=values.mono16,
            geometry=values.verification if values.publish_matches else "none",
        )
        return cls(values, frame)

    def load(self) -> MatchPipeline:
        """Load the model and run it once, so that the first frame is not the slow one.

        Raises:
            ConfigError, ModelError, ProviderError: see their texts.
        """
        values = self.values
        pipeline = MatchPipeline(
            values.model,
            values.provider,
            self.frame.image_size,
            max_keypoints=self.frame.max_keypoints,
            match_threshold=values.match_threshold,
            num_threads=values.num_threads,
            allow_fallback=values.allow_fallback,
            cuda_graph=values.cuda_graph,
            graphs=values.graphs,
        )
        self.check(pipeline)
        pipeline.warm_up(len(self.frame.rig.cameras), len(self.frame.rig.pairs))
        return pipeline

    def check(self, pipeline: MatchPipeline) -> None:
        """Check that the model can do this.

        Raises:
            ConfigError: it cannot.
        """
        pipeline.check(
            image_size=self.frame.image_size,
            max_keypoints=self.frame.max_keypoints,
            match_threshold=self.frame.match_threshold,
            images=self.frame.rig.most_images,
            pairs=len(self.frame.rig.pairs),
        )


P = TypeVar("P", bound=CameraParameters)


def collect(kind: type[P], values: Mapping[str, Any]) -> P:
    """Put values together and check what a range cannot.

    Args:
        kind: of the parameters.
        values: of each of them.

    Raises:
        ConfigError: a value is none of the choices, or the values do not fit each other.
    """
    parameters = kind(**{name: _listed(value) for name, value in values.items()})
    check_each(asdict(parameters))
    if isinstance(parameters, MatcherParameters):
        _check_work(parameters)
        _check_camera_info_topics(parameters)
        if parameters.takes_features and parameters.verification != "essential":
            return parameters
    if len(parameters.cameras) != len(parameters.image_topics):
        raise ConfigError(
            f"parameter image_topics has {len(parameters.image_topics)} topics for "
            f"{len(parameters.cameras)} cameras",
            allowed="one topic for each camera, in the same order",
            fix="cameras: [left, right] and image_topics: [left/image_rect, right/image_rect]",
        )
    return parameters


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


def _check_camera_info_topics(values: MatcherParameters) -> None:
    topics = values.given_camera_info_topics
    if topics and len(topics) != len(values.cameras):
        raise ConfigError(
            f"parameter camera_info_topics has {len(topics)} topics for {len(values.cameras)} cameras",
            allowed="one topic for each camera, in the same order, or none",
            fix="camera_info_topics: [left/camera_info, right/camera_info]",
        )


def read_file(path: Path | None, changes: Sequence[str] = ()) -> MatcherParameters:
    """Read the matcher's parameters from a file, as ROS reads it for the node /matcher.

    Args:
        path: a ROS parameter file; parameters that it lacks, and all without it, have their defaults.
        changes: values that go before the file's, each as `name:=value` with a value in YAML.

    Raises:
        ConfigError: the file cannot be read, a value has the wrong type or is not allowed, or the values do
            not fit each other.
    """
    given = {} if path is None else _parameters_of(path)
    given |= dict(map(_change, changes))
    for name, value in given.items():
        _check_value(name, value)
    defaults = {field.name: SPECS[field.name].default for field in fields(MatcherParameters)}
    return collect(MatcherParameters, defaults | given)


def _parameters_of(path: Path) -> dict[str, Any]:
    try:
        content = _yaml(path.expanduser().read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"parameter file {path} cannot be read ({error})", fix="check the path") from error
    if content is None:
        raise ConfigError(f"parameter file {path} is no YAML", allowed="a ROS parameter file")
    sections = list(_sections(content))
    if not sections:
        raise ConfigError(
            f"parameter file {path} has no parameters of the node /matcher",
            allowed="/** or matcher, with ros__parameters below",
            fix="begin with a copy of config/matcher.yaml",
        )
    # What is for other nodes may be there as well, and ROS does not mind.
    return {name: value for section in sections for name, value in section.items() if name in SPECS}


def _sections(content: Any) -> Iterator[dict[str, Any]]:
    """The parameters of each part of a file that is for the node, in whatever namespace."""
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
        raise ConfigError(
            f"'{text}' sets no parameter", allowed=f"name:=value with a name of {', '.join(SPECS)}"
        )
    return name, _yaml(value)


def _yaml(text: str) -> Any:
    """What YAML means; None where it is none."""
    try:
        import yaml
    except ImportError as missing:
        raise ConfigError(
            f"reading parameters needs the Python package yaml ({missing})", fix="pip install pyyaml"
        ) from missing
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None


def _check_value(name: str, value: Any) -> None:
    """Check type and range, as ROS does when a node declares its parameters."""
    spec = SPECS[name]
    is_list = isinstance(spec.default, list)
    values, kind = (value, type(spec.default[0])) if is_list else ([value], type(spec.default))
    is_fit = isinstance(values, list) and all(type(one) is kind for one in values)
    if is_fit and spec.limits:
        least, most = spec.limits
        is_fit = least <= value <= most
    if not is_fit:
        raise ConfigError(
            f"parameter {name} is {value!r}", allowed=spec.allowed, fix=f"for example {name}: {spec.default}"
        )


def check_each(values: Mapping[str, Any]) -> None:
    """Check each value by itself; limits of numbers are checked by ROS.

    Raises:
        ConfigError: one is none of the choices.
    """
    for name, value in values.items():
        spec = SPECS[name]
        if spec.choices and value not in spec.choices:
            raise ConfigError(
                f"parameter {name} is '{value}'", allowed=spec.allowed, fix=f"{name}: {spec.default}"
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


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value
