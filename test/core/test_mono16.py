import numpy as np
import pytest

from lightglue_ros.core import ConfigError
from lightglue_ros.core.mono16 import Mono16Range

VALUES = np.random.default_rng(0).integers(0, 65536, (120, 160)).astype(np.uint16)


@pytest.mark.parametrize(
    ("mono16", "low", "high", "tolerance"),
    [
        *((Mono16Range("fixed", ends), *ends, 0.501) for ends in ((0, 65535), (1000, 1255), (20000, 60000))),
        (Mono16Range(percentiles=(5.0, 90.0)), *np.percentile(VALUES, [5.0, 90.0]), 1.0),
    ],
)
def test_a_range_is_linear_between_its_ends_and_saturates_beyond(mono16, low, high, tolerance):
    found = mono16.to_8_bits(VALUES)
    expected = np.clip((VALUES.astype(float) - low) / (high - low), 0.0, 1.0) * 255.0
    assert found.dtype == np.uint8
    assert np.abs(found - expected).max() <= tolerance


def test_a_camera_of_12_bits_uses_all_of_the_8_bits_whatever_a_hot_pixel_says():
    image = (VALUES >> 4).copy()
    image[3, 3] = 65535
    found = Mono16Range().to_8_bits(image)
    assert (found.min(), found.max()) == (0, 255)
    assert 100 < found.mean() < 155


def test_large_images_have_the_percentiles_of_all_their_pixels():
    image = np.tile(VALUES, (10, 10))
    difference = Mono16Range().to_8_bits(image)[:120, :160] - Mono16Range().to_8_bits(VALUES).astype(int)
    assert np.abs(difference).max() <= 2


@pytest.mark.parametrize("value", [0, 5, 65535])
def test_an_image_of_one_value_is_no_error(value):
    assert Mono16Range().to_8_bits(np.full((4, 5, 3), value, np.uint16)).shape == (4, 5, 3)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"kind": "auto"}, "mono16_normalisation is 'auto'; allowed: percentile, fixed"),
        ({"fixed_range": (5, 5)}, "mono16_range is [5, 5]"),
        ({"fixed_range": (0, 65536)}, "mono16_range"),
        ({"fixed_range": (0,)}, "mono16_range: [0, 4095]"),
        ({"percentiles": (99.0, 1.0)}, "mono16_percentiles"),
        ({"percentiles": (0.0, float("nan"))}, "mono16_percentiles"),
    ],
)
def test_a_range_that_is_none_is_refused(values, says):
    with pytest.raises(ConfigError) as caught:
        Mono16Range(**values)
    assert says in str(caught.value)
