"""Starts extractors and matcher on computers of their own, each with the same parameters file.

    ros2 launch lightglue_ros split.launch.py part:=left      at the computer of the left camera
    ros2 launch lightglue_ros split.launch.py part:=right     at that of the right one
    ros2 launch lightglue_ros split.launch.py part:=matcher   where the features are matched

Without `part` everything starts on this computer. The file is for all nodes (`/**:`), as those in config/.
"""

from launch.actions import DeclareLaunchArgument

from lightglue_ros.core import ConfigError
from lightglue_ros.nodes import launching

ARGUMENTS = [
    DeclareLaunchArgument(
        "part",
        default_value="all",
        description="What to start here: names of cameras and matcher, with commas between, or all.",
    ),
    DeclareLaunchArgument(
        "features_precision",
        default_value="",
        description="fp32, or fp16 for half the bytes. Empty: as in the parameters file.",
    ),
]
MATCHER = "matcher"


def extractor(context, camera, topic):
    """A node that extracts the images of one camera."""
    precision = launching.argument(context, "features_precision")
    overrides = {
        "cameras": [camera],
        "image_topics": [topic],
        "publish_features": True,
        "publish_matches": False,
        **({"features_precision": precision} if precision else {}),
    }
    return launching.node(context, MATCHER, f"extractor_{camera}", overrides)


def nodes(context):
    """The nodes of the parts that were asked for."""
    topics = launching.camera_topics(context)
    asked = launching.argument(context, "part").split(",")
    parts = [*topics, MATCHER] if asked == ["all"] else asked
    unknown = [part for part in parts if part not in (*topics, MATCHER)]
    if unknown:
        raise ConfigError(
            f"part has '{unknown[0]}'", allowed=f"all, or some of {', '.join([*topics, MATCHER])}"
        )
    started = [extractor(context, part, topics[part]) for part in parts if part != MATCHER]
    if MATCHER in parts:
        started.append(launching.node(context, MATCHER, overrides={"input": "features"}))
    return started


def generate_launch_description():
    """Called by `ros2 launch`."""
    return launching.description(ARGUMENTS, nodes)
