"""The topics of the nodes, for the documentation; a test holds them against the running matcher."""

from __future__ import annotations

from dataclasses import dataclass

from lightglue_ros.nodes import drawing
from lightglue_ros.rosdata.parameters import annotations_topic, features_topic

CAMERA = "CAMERA"
IMAGE_TOPIC = "IMAGE_TOPIC"


@dataclass(frozen=True)
class Topic:
    """A topic of a node.

    Attributes:
        name: with CAMERA for the name of a camera, and IMAGE_TOPIC for one of image_topics.
        type: of its messages.
        is_published: or subscribed to.
        description: when, and what.
    """

    name: str
    type: str
    is_published: bool
    description: str


_IMAGES = (
    Topic(IMAGE_TOPIC, "sensor_msgs/msg/Image", False, "with image_transport raw"),
    Topic(
        f"{IMAGE_TOPIC}/compressed",
        "sensor_msgs/msg/CompressedImage",
        False,
        "with image_transport compressed",
    ),
)
_CLOCK = Topic("/clock", "rosgraph_msgs/msg/Clock", False, "with use_sim_time")
_PICTURE = Topic(
    drawing.TOPIC, "sensor_msgs/msg/Image", True, "all pairs of a frame, drawn while somebody subscribes"
)

TOPICS = {
    "matcher": (
        *_IMAGES,
        Topic(features_topic(CAMERA), "lightglue_ros/msg/Features", False, "with input features, for images"),
        Topic(
            "camera_info",
            "sensor_msgs/msg/CameraInfo",
            False,
            "with verification essential: beside each of image_topics, or camera_info_topics",
        ),
        _CLOCK,
        Topic("matches", "lightglue_ros/msg/Matches", True, "all pairs of a frame"),
        _PICTURE,
        Topic(features_topic(CAMERA), "lightglue_ros/msg/Features", True, "with publish_features"),
        Topic(
            annotations_topic(CAMERA),
            "foxglove_msgs/msg/ImageAnnotations",
            True,
            "with publish_annotations, while somebody subscribes",
        ),
        Topic("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", True, "once a second"),
        Topic("~/transition_event", "lifecycle_msgs/msg/TransitionEvent", True, "of the managed node"),
    ),
    "viewer": (
        *_IMAGES,
        Topic("matches", "lightglue_ros/msg/Matches", False, "to be drawn"),
        _CLOCK,
        _PICTURE,
    ),
    "player": (
        Topic(IMAGE_TOPIC, "sensor_msgs/msg/Image", True, "of each camera"),
        Topic(f"{IMAGE_TOPIC}/compressed", "sensor_msgs/msg/CompressedImage", True, "as a bag has them"),
        Topic("/clock", "rosgraph_msgs/msg/Clock", True, "with clock"),
    ),
}
