import platform

import numpy as np
import pytest

from lightglue_ros.core import MatchPipeline
from lightglue_ros.core.denormals import flushed_denormals

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86 is slowed down by denormals")


def product_is_flushed():
    """Whether this thread takes 1e-39 as zero."""
    return not (np.full(64, 1e-39, np.float32) * np.float32(2)).any()


def test_denormals_are_zero_inside_the_block_only():
    assert not product_is_flushed()
    with flushed_denormals():
        assert product_is_flushed()
    assert not product_is_flushed()


def test_an_error_inside_the_block_does_not_leave_it_on():
    with pytest.raises(ValueError, match="inside"), flushed_denormals():
        raise ValueError("inside")
    assert not product_is_flushed()


def test_a_pipeline_leaves_the_callers_arithmetic_as_it_was(model_folder):
    pipeline = MatchPipeline(model_folder, "cpu", image_size=(64, 64))
    pipeline.match([np.zeros((64, 64), np.uint8)] * 2, [(0, 1)])
    assert not product_is_flushed()
