"""The runtime: images in, matches out, without ROS and without PyTorch."""

from lightglue_ros.core.pipeline import Features, MatchPipeline, PairMatches
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
