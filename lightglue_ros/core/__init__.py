"""The runtime: images in, matches out, without ROS and without PyTorch."""

from lightglue_ros.core.features import Features, PairMatches
from lightglue_ros.core.pipeline import MatchPipeline
from lightglue_ros.errors import ConfigError, ImageError, LightGlueRosError, ModelError, ProviderError

__all__ = [
    "ConfigError",
    "Features",
    "ImageError",
    "LightGlueRosError",
    "MatchPipeline",
    "ModelError",
    "PairMatches",
    "ProviderError",
]
