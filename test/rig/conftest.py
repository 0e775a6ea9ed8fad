"""What several tests of rigs share."""

import pytest

from lightglue_ros.core import MatchPipeline


@pytest.fixture(scope="module")
def pipeline(model_folder):
    return MatchPipeline(model_folder, "cpu", image_size=(320, 224), max_keypoints=300)
