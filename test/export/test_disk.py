"""What DISK does otherwise than the original and must not change: layers at chosen pixels, equal pixels."""

import pytest
import torch
from torch.nn import functional as F

from lightglue_ros.export.models.disk import DISK, _in_blocks, _keypoint_scores


@pytest.fixture
def disk():
    """With random weights."""
    torch.manual_seed(0)
    return DISK().eval()


def test_descriptors_are_those_of_a_convolution_up_to_the_borders(disk):
    features = torch.randn(2, 80, 7, 9)
    weight = disk.descriptor.weight.unflatten(1, (80, 5, 5))
    dense = F.normalize(F.conv2d(features, weight, disk.descriptor.bias, padding=2), dim=1)
    every_pixel = torch.stack([torch.arange(9).repeat(7), torch.arange(7).repeat_interleave(9)], dim=1)
    found = disk.describe(features, every_pixel.float().expand(2, -1, -1), (9, 7))
    torch.testing.assert_close(found, dense.flatten(2).transpose(1, 2))


def test_the_heatmap_in_blocks_is_that_of_the_convolution():
    features, kernel = torch.randn(2, 3, 16, 32), torch.randn(3, 5, 5)
    found = F.pixel_shuffle(F.conv2d(features, _in_blocks(kernel), stride=4, padding=2), 4)
    torch.testing.assert_close(found, F.conv2d(features, kernel[None], padding=2), atol=1e-4, rtol=1e-4)


def test_of_equal_pixels_the_first_is_the_keypoint():
    """On few whole numbers, some below 0, and an even area; judged by the index of the maximum."""
    torch.manual_seed(0)
    heatmap = torch.randint(-2, 9, (3, 32, 48)).float()
    heatmap[0, 8:24, 8:24] = 9
    heatmap[1] -= 9
    _, first = F.max_pool2d(heatmap, 5, stride=1, padding=2, return_indices=True)
    expected = (first == torch.arange(32 * 48).view(32, 48)) & (heatmap > 0)
    assert expected[0].any()
    torch.testing.assert_close(_keypoint_scores(heatmap), heatmap * expected)


def test_an_image_of_one_colour_has_no_keypoints(disk):
    images = torch.rand(2, 3, 32, 48)
    images[0] = torch.tensor([0.0, 0.25, 0.8]).view(3, 1, 1)
    with torch.inference_mode():
        scores, _ = disk(images)
    assert not scores[0].any()
    assert scores[1].any()
