"""The parameters of matcher and viewer.

Each parameter is declared once, as a field of a dataclass. A running node reads the values from ROS, the
`bag` command from a parameter file (see `parameter_files`); they mean the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import cycle
from pathlib import Path
from typing import Any, TypeVar

from lightglue_ros.core import MatchPipeline
from lightglue_ros.core.contract import EXTRACTOR, MATCHER
from lightglue_ros.core.draw import AGE
from lightglue_ros.core.providers import PROVIDERS
from lightglue_ros.core.refinement import REFINEMENTS
from lightglue_ros.core.rotation import AUTO
from lightglue_ros.errors import ConfigError
from lightglue_ros.rig.frame import FrameSettings
from lightglue_ros.rig.rig import Rig
from lightglue_ros.rig.verification import GEOMETRIES
from lightglue_ros.rosdata.camera_parameters import CameraParameters
from lightglue_ros.rosdata.lists_of_cameras import check_lists_of_cameras
from lightglue_ros.rosdata.masks import camera_masks
from lightglue_ros.rosdata.parameter_spec import parameter, specs_of


@dataclass(frozen=True, kw_only=True)
class MatcherParameters(CameraParameters):
    """Parameters of the matcher.

    Raises:
        ConfigError: a value is not allowed, or the values do not fit each other.
    """

    input: str = parameter(
        "images",
        "Input from the cameras; features come from extractors on other computers, on the topics "
        "features/CAMERA.",
        choices=("images", "features"),
    )
    pairs: list[str] = parameter(
        ["left:right"],
        "Pairs of images to match: left:right is two cameras, left@-1:left a camera's last processed frame "
        "and now.",
        can_change=True,
    )
    model: str = parameter(
        "xfeat", "Model: a name in the model store, or a folder with extractor.onnx and matcher.onnx."
    )
    provider: str = parameter(
        "auto",
        "Where the model runs; auto is cuda if that works, else cpu; tensorrt only by name.",
        choices=PROVIDERS,
    )
    allow_fallback: bool = parameter(
        False, "Use the CPU if a provider that was asked for by name does not work."
    )
    cuda_graph: bool = parameter(
        False,
        "With provider cuda and a model of fixed shapes: record the first run as a CUDA graph and replay it.",
    )
    gpu_memory_limit: int = parameter(
        0,
        "Most memory in MiB that each of the two graphs may take with provider cuda, without CUDA's own "
        "libraries; 0 is no limit.",
        limits=(0, 1 << 20),
    )
    num_threads: int = parameter(0, "Threads of the CPU provider; 0 is one per core.", limits=(0, 256))
    spin_threads: bool = parameter(
        False,
        "Threads of the CPU provider spin for as long as they wait for each other, and not only for 5 µs. "
        "This is a tenth faster on a machine with no other work, and much slower next to a busy process.",
    )
    overlap: bool = parameter(
        False,
        "On a CPU: extract a frame while the one before is matched. A node that cannot keep up with its "
        "cameras then matches more frames, each of them later.",
    )
    image_width: int = parameter(
        640,
        "Width of the canvas, the model's input, in pixels (XFeat: a multiple of 32, rounded up). Images are "
        "shrunk to fit the canvas, never enlarged.",
        limits=(32, 8192),
        can_change=True,
    )
    image_height: int = parameter(
        480, "Height of the canvas in pixels; see image_width.", limits=(32, 8192), can_change=True
    )
    max_keypoints: int = parameter(
        0,
        "Highest number of keypoints per image; 0 is the number that the model was exported with.",
        limits=(0, 65536),
        can_change=True,
    )
    match_threshold: float = parameter(
        0.1, "Matches with a lower score are left out.", limits=(0.0, 1.0), can_change=True
    )
    refine: str = parameter(
        "auto",
        "Refinement of matches to fractions of a pixel, by comparing the images around each match: "
        "lucas_kanade, none, or auto, which is lucas_kanade for models whose keypoints are whole pixels "
        "(xfeat, disk, superpoint). Features that come in place of images are not refined.",
        choices=REFINEMENTS,
        can_change=True,
    )
    camera_rotations: list[str] = parameter(
        [""],
        "For each camera the angle in degrees CLOCKWISE by which its images are turned before extraction so "
        "that they are upright: 0, 90, 180, 270, or auto; empty is 0 for all. Results stay in pixels of the "
        "images as they come. A turned image is shrunk to fit the canvas.",
    )
    mask_files: list[str] = parameter(
        [""],
        "For each camera an image file that is black (0) where no keypoint may be, such as on the robot's "
        "own arm; of any size with the aspect of the images. Empty is no mask.",
    )
    mask_topics: list[str] = parameter(
        [""],
        "For each camera the topic of masks that change, such as from a segmentation: Image in mono8, or "
        "CompressedImage in grey PNG, black (0) where no keypoint may be. They add to mask_files. Empty is "
        "no topic.",
    )
    mask_max_age: float = parameter(
        0.5,
        "Longest time between the stamps of a mask and of an image (s). If the newest mask is farther away, "
        "the image is matched without it, and /diagnostics warn.",
        limits=(0.0, 3600.0),
    )
    verification: str = parameter(
        "none",
        "Geometry that the matches are checked against; matches and pictures show which of them agree. "
        "essential needs CameraInfo.",
        choices=("none", *GEOMETRIES),
        can_change=True,
    )
    camera_info_topics: list[str] = parameter(
        [""],
        "Topic of each camera's sensor_msgs/CameraInfo, used with verification: essential, for tracks and "
        "points, and to watch the calibration; empty is camera_info next to each of image_topics. Topics "
        "whose last component starts with image_rect are treated as rectified (P is used, no distortion), "
        "all others as raw (K and D).",
    )
    calibration_limit: float = parameter(
        0.5,
        "Warn on /diagnostics if the median row error of a stereo pair in the last minute exceeds this many "
        "pixels of the images; needs CameraInfo; 0 does not watch the calibration.",
        limits=(0.0, 100.0),
        can_change=True,
    )
    sync_slop: float = parameter(
        0.0,
        "Largest difference between the stamps of one frame (s); 0 is 0.45 of the fastest camera's period.",
        limits=(0.0, 10.0),
        can_change=True,
    )
    camera_timeout: float = parameter(
        1.0,
        "How long the other cameras wait for a camera (s); then it is missing, and frames go on without it.",
        limits=(0.01, 3600.0),
        can_change=True,
    )
    publish_matches: bool = parameter(
        True, "Publish matches; false, with publish_features: true, only extracts and ignores pairs."
    )
    publish_features: bool = parameter(
        False, "Publish the features of each image on features/CAMERA, for a matcher on another computer."
    )
    features_precision: str = parameter(
        "fp32",
        "Precision of the descriptors in published features; fp16 halves the bytes.",
        choices=("fp32", "fp16"),
    )
    publish_tracks: bool = parameter(
        False,
        "Publish tracks: all keypoints of a frame, with ids that matches carry on through time and across "
        "cameras. Needs pairs through time; CameraInfo adds rays.",
    )
    publish_points: bool = parameter(
        False,
        "Publish the points of rectified stereo pairs as sensor_msgs/PointCloud2 on points, while somebody "
        "subscribes; needs CameraInfo.",
    )
    publish_annotations: bool = parameter(
        False,
        "Publish the matches as foxglove_msgs/ImageAnnotations on matches/annotations/CAMERA, at most at "
        "drawing_rate, while somebody subscribes; foxglove_msgs must be installed.",
    )
    lazy: bool = parameter(
        True,
        "Extract and match only while somebody subscribes to a result; false also works without subscribers.",
        can_change=True,
    )
    autostart: bool = parameter(
        True, "Configure and activate at start-up; false leaves it to a lifecycle manager.", is_read_only=True
    )

    def _check_together(self) -> None:
        if self.takes_features and self.publish_features:
            raise ConfigError(
                "parameter publish_features is true and input is features: nothing is extracted here",
                allowed="one of the two",
                fix="publish_features: false, or input: images",
            )
        if not self.publish_matches and not self.publish_features:
            raise ConfigError(
                "parameters publish_matches and publish_features are both false: there is nothing to do",
                allowed="at least one of them true",
                fix="publish_matches: true to match, publish_features: true to extract only",
            )
        for name, is_wanted in (("tracks", self.publish_tracks), ("points", self.publish_points)):
            if is_wanted and not self.publish_matches:
                raise ConfigError(
                    f"parameter publish_{name} is true and publish_matches is false: nothing is matched here",
                    allowed=f"{name} together with matches",
                    fix=f"publish_matches: true, or publish_{name}: false",
                )
        if self.drawing_colour == AGE and not self.publish_tracks:
            raise ConfigError(
                "parameter drawing_colour is age and publish_tracks is false: only tracks have an age",
                allowed="score or disparity without tracks",
                fix="publish_tracks: true",
            )
        if not self.pairs and self.publish_matches:
            raise ConfigError(
                "parameter pairs is empty",
                allowed="at least one 'first:second'",
                fix='pairs: ["left:right"], or publish_matches: false to extract only',
            )
        check_lists_of_cameras(self)
        super()._check_together()
        self._check_references()

    def _check_references(self) -> None:
        rig = self.frame.rig
        with_reference = [pair for pair in rig.pairs if any(map(rig.reference_of, pair))]
        if with_reference and self.verification == "essential":
            raise ConfigError(
                f"parameter verification is essential, and pair {rig.name_of(with_reference[0])} has a "
                "reference, whose intrinsics are unknown",
                allowed="homography for a plane, fundamental, or none",
                fix="verification: homography",
            )

    def of_cameras(self, values: Sequence[str]) -> list[str]:
        """Return a value for each camera; empty ones if none is given."""
        return list(values) if any(values) else [""] * len(self.cameras)

    @property
    def takes_features(self) -> bool:
        """True if features come in place of images."""
        return self.input == "features"

    @property
    def needs_image_topics(self) -> bool:
        """True if image_topics are subscribed to, or name the topics of CameraInfo."""
        return not self.takes_features or self.needs_camera_info

    @property
    def needs_camera_info(self) -> bool:
        """True if the topics of CameraInfo are subscribed to."""
        is_wanted = self.verification == "essential" or self.publish_tracks or self.publish_points
        return is_wanted or (self.watches_calibration and not self.takes_features)

    @property
    def watches_calibration(self) -> bool:
        """True if the row errors of pairs of two cameras are counted, where CameraInfo is known."""
        pairs = self.frame.rig.pairs
        return self.calibration_limit > 0 and any(map(self.frame.rig.is_of_two_cameras, pairs))

    @property
    def graphs(self) -> tuple[str, ...]:
        """The graphs of the model that this node runs."""
        if self.takes_features and not self.frame.rig.references:
            return (MATCHER,)
        return (EXTRACTOR, MATCHER) if self.publish_matches else (EXTRACTOR,)

    @property
    def features_topics(self) -> list[str]:
        """Topic of each camera's features; empty if features are neither taken nor published."""
        has_features = self.takes_features or self.publish_features
        return [f"features/{camera}" for camera in self.cameras] if has_features else []

    @property
    def annotation_topics(self) -> list[str]:
        """Topic of each camera's annotations; empty if they are not published."""
        return [f"matches/annotations/{it}" for it in self.cameras] if self.publish_annotations else []

    @property
    def given_camera_info_topics(self) -> list[str]:
        """Topics of CameraInfo; empty if they are the ones next to the images."""
        return [topic for topic in self.camera_info_topics if topic]

    @property
    def results(self) -> str:
        """Name of the results that are made of the images."""
        return "matches" if self.publish_matches else "features"

    @property
    def input_topics(self) -> list[str]:
        """Topic of each camera's images or features."""
        return self.features_topics if self.takes_features else self.image_topics

    @property
    def named_topics(self) -> list[tuple[str, str, str]]:
        """Topics that must be valid names: parameter, its value and the topic that comes from the value."""
        made = [*self.features_topics, *self.annotation_topics]
        return [
            *(("cameras", camera, topic) for camera, topic in zip(cycle(self.cameras), made, strict=False)),
            *(("camera_info_topics", topic, topic) for topic in self.given_camera_info_topics),
            *(("mask_topics", topic, topic) for topic in self.mask_topics if topic),
            *super().named_topics,
        ]

    @cached_property
    def frame(self) -> FrameSettings:
        """The settings of a frame that follow from the parameters."""
        return FrameSettings(
            rig=Rig.parse(self.cameras, self.pairs, self.references)
            if self.publish_matches
            else Rig.parse(self.cameras, []),
            image_size=(self.image_width, self.image_height),
            max_keypoints=self.max_keypoints or None,
            match_threshold=self.match_threshold,
            mono16=self.mono16,
            geometry=self.verification if self.publish_matches else "none",
            refine=self.refine,
            rotations=tuple(None if it == AUTO else int(it) for it in self.camera_rotations if it),
        )

    def with_absolute_references(self) -> MatcherParameters:
        """Return the parameters for processes that may run in other folders."""
        texts = [text.partition(":") for text in self.references if text]
        paths = [f"{name}:{Path(path).expanduser().absolute()}" for name, _, path in texts]
        return replace(self, references=paths)

    def load(self) -> MatchPipeline:
        """Load the model and run it once, so that the first frame is not slow.

        Raises:
            ConfigError, ModelError, ProviderError: see their texts.
        """
        camera_masks(self, [])  # before the model, which takes seconds
        pipeline = MatchPipeline(
            self.model,
            self.provider,
            self.frame.image_size,
            max_keypoints=self.frame.max_keypoints,
            match_threshold=self.match_threshold,
            refine=self.refine,
            num_threads=self.num_threads,
            spin_threads=self.spin_threads,
            allow_fallback=self.allow_fallback,
            cuda_graph=self.cuda_graph,
            gpu_memory_limit=self.gpu_memory_limit,
            graphs=self.graphs,
        )
        self.check_model(pipeline)
        pipeline.warm_up(len(self.cameras), *self.frame.rig.run_shape)
        return pipeline

    def check_model(self, pipeline: MatchPipeline) -> None:
        """Raise a ConfigError if the model cannot run with these parameters."""
        pipeline.check(
            image_size=self.frame.image_size,
            max_keypoints=self.frame.max_keypoints,
            match_threshold=self.match_threshold,
            images=self.frame.rig.most_images,
            pairs=len(self.frame.rig.matched_pairs),
        )


SPECS = specs_of(MatcherParameters)
P = TypeVar("P", bound=CameraParameters)


def check_changeable(present: MatcherParameters, changes: Mapping[str, Any]) -> None:
    """Raise a ConfigError if a parameter would change that cannot change while the node runs."""
    for name, value in changes.items():
        if not SPECS[name].can_change and value != getattr(present, name):
            raise ConfigError(
                f"parameter {name} cannot change while the node runs",
                allowed=", ".join(name for name, spec in SPECS.items() if spec.can_change),
                fix="ros2 lifecycle set /matcher deactivate, then cleanup, and then set the parameter",
            )
