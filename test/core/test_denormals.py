import platform
from contextlib import suppress

import numpy as np
import pytest

from lightglue_ros.core import MatchPipeline
from lightglue_ros.core.denormals import flushed_denormals


def product_is_flushed():
    """True if this thread takes 1e-39 as zero."""
    return not (np.full(64, 1e-39, np.float32) * np.float32(2)).any()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86 is slowed down by denormals")
def test_denormals_are_zero_inside_the_block_only_though_an_error_ends_it():
    assert not product_is_flushed()
    with suppress(ValueError), flushed_denormals():
        assert product_is_flushed()
        raise ValueError
    assert not product_is_flushed()


def test_a_pipeline_leaves_the_callers_arithmetic_as_it_was(model_folder):
    pipeline = MatchPipeline(model_folder, "cpu", image_size=(64, 64))
    pipeline.match([np.zeros((64, 64), np.uint8)] * 2, [(0, 1)])
    assert not product_is_flushed()
