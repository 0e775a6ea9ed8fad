"""The runtime: images in, matches out, without ROS and without PyTorch."""

from lightglue_ros.core.errors import ConfigError, ImageError, LightGlueRosError, ModelError, ProviderError
from lightglue_ros.core.pipeline import Features, MatchPipeline, PairMatches

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
