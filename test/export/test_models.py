"""Parts of the networks that are written differently from the originals."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from random_weights import SEED, lightglue_weights, superpoint_weights
from torch.nn import functional as F

from lightglue_ros.export import MODELS
from lightglue_ros.export.models import maps
from lightglue_ros.export.models.aliked import DeformableConvolution
from lightglue_ros.export.models.disk import DISK, _in_blocks, _is_keypoint
from lightglue_ros.export.models.lightglue import LightGlue
from lightglue_ros.export.models.superpoint import SuperPoint
from lightglue_ros.export.models.transformer import Attention, LightGlueConfig, pad_heads
from lightglue_ros.export.options import TARGETS
from lightglue_ros.export.precision.int8_matcher import AttentionOfOneHead, QuantisedAttention

CONFIG = LightGlueConfig(input_dim=64, width=64, heads=4, layers=1)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def random_disk():
    return DISK().eval()


def random_superpoint():
    return SuperPoint.from_state_dict(superpoint_weights(SEED))


@pytest.mark.parametrize("build", [random_disk, random_superpoint])
def test_an_image_of_one_colour_has_no_keypoints(build):
    images = torch.rand(2, 3, 32, 48)
    images[0] = torch.tensor([0.0, 0.25, 0.8]).view(3, 1, 1)
    with torch.inference_mode():
        _, is_keypoint, _ = build()(images)
    assert is_keypoint.flatten(1).any(dim=1).tolist() == [False, True]


def test_disk_computes_descriptors_at_single_pixels_as_a_convolution_does_up_to_the_borders():
    disk, features = random_disk(), torch.randn(2, 80, 7, 9)
    weight = disk.descriptor.weight.unflatten(1, (80, 5, 5))
    dense = F.normalize(F.conv2d(features, weight, disk.descriptor.bias, padding=2), dim=1)
    every_pixel = torch.stack([torch.arange(9).repeat(7), torch.arange(7).repeat_interleave(9)], dim=1)
    found = disk.describe((features, None), every_pixel.float().expand(2, -1, -1), (9, 7))
    torch.testing.assert_close(found, dense.flatten(2).transpose(1, 2))


@pytest.mark.parametrize("is_probability", [True, False])
def test_peaks_lie_between_the_pixels_where_the_parabola_has_them_and_maxima_at_the_edge_stay(is_probability):
    peaks = torch.tensor([[5.3, 7.0], [20.0, 4.6], [0.2, 12.0], [23.0, 15.4]])
    y, x = torch.arange(16.0), torch.arange(24.0)
    maps_of_peaks = [-0.3 * ((y - peak[1])[:, None] ** 2 + (x - peak[0]) ** 2) for peak in peaks]
    heatmap = torch.stack(maps_of_peaks)
    positions = peaks.round().clamp(max=torch.tensor([23.0, 15.0])).unsqueeze(1)
    values = heatmap.exp() if is_probability else heatmap
    found = positions + maps.peak_shifts(values, positions, is_probability=is_probability)
    expected = torch.tensor([[5.3, 7.0], [20.0, 4.6], [0.0, 12.0], [23.0, 15.0]])
    torch.testing.assert_close(found[:, 0], expected, atol=1e-3, rtol=0)
    even = maps.peak_shifts(torch.full((1, 16, 24), 0.5), positions[:1], is_probability=is_probability)
    assert not even.any()


def test_disk_computes_the_heatmap_in_blocks_as_a_convolution_does():
    features, kernel = torch.randn(2, 3, 16, 32), torch.randn(3, 5, 5)
    found = F.pixel_shuffle(F.conv2d(features, _in_blocks(kernel), stride=4, padding=2), 4)
    torch.testing.assert_close(found, F.conv2d(features, kernel[None], padding=2), atol=1e-4, rtol=1e-4)


def test_the_first_of_equal_pixels_is_disks_keypoint():
    """The heatmap has few whole numbers, some below 0, and an even area; max_pool2d's index is the judge."""
    heatmap = torch.randint(-2, 9, (3, 32, 48)).float()
    heatmap[0, 8:24, 8:24] = 9
    heatmap[1] -= 9
    _, first = F.max_pool2d(heatmap, 5, stride=1, padding=2, return_indices=True)
    expected = (first == torch.arange(32 * 48).view(32, 48)) & (heatmap > 0)
    assert expected[0].any()
    assert torch.equal(_is_keypoint(heatmap), expected)


def test_maps_with_channels_last_have_the_same_sum():
    one, other = torch.rand(2, 3, 5, 7), torch.rand(2, 3, 5, 7)
    assert torch.equal(maps.add_channels_last(one, other), one + other)


def test_superpoint_weighs_colours_as_their_grey():
    extractor, colours = random_superpoint(), torch.rand(1, 3, 64, 96)
    grey = (colours * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    with torch.inference_mode():
        scores, is_keypoint, features = extractor(colours)
        grey_scores, _, grey_features = extractor(grey.expand(-1, 3, -1, -1))
    assert is_keypoint.any()
    torch.testing.assert_close(scores, grey_scores, atol=1e-6, rtol=0)
    torch.testing.assert_close(features, grey_features, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 1), (6, 7)])
def test_both_forms_of_alikeds_deformable_convolution_are_the_same_on_maps_of_any_size(size):
    operator, portable = (DeformableConvolution(3, 4, portable=portable) for portable in (False, True))
    portable.load_state_dict(operator.state_dict())
    features = torch.randn(2, 3, *size)
    with torch.no_grad():
        expected = portable(features)
        assert expected.abs().max() > 0.1
        np.testing.assert_allclose(operator(features), expected, atol=1e-5)


def scaled_dot_product_attention(query, key, value, mask):
    parts = (
        part.unflatten(2, (CONFIG.heads, CONFIG.head_dim)).transpose(1, 2) for part in (query, key, value)
    )
    found = F.scaled_dot_product_attention(*parts, attn_mask=mask[:, None, None], scale=1.0)
    return found.transpose(1, 2).flatten(2)


def with_channel(values, last):
    by_head = values.unflatten(2, (CONFIG.heads, CONFIG.head_dim))
    return F.pad(by_head, (0, 1), value=last).flatten(2)


def in_heads(values, channels):
    """Pad the heads of values [S, K, heads * c] with zeros."""
    return pad_heads(values.permute(2, 0, 1), CONFIG.heads, channels).permute(1, 2, 0)


@pytest.mark.parametrize("key_channel", [0.0, 1.0])
@pytest.mark.parametrize("target", TARGETS)
def test_attention_with_a_mask_channel_is_scaled_dot_product_attention(target, key_channel):
    query, key, value = torch.randn(3, 2, 9, CONFIG.width)
    mask = torch.rand(2, 9) > 0.3
    config = replace(CONFIG, target=target)
    expected = in_heads(scaled_dot_product_attention(query, key, value, mask), config.value_dim)

    def attend(key, value):
        query_and_key = with_channel(query, 1.0), with_channel(key, key_channel)
        padded = (in_heads(part, config.key_dim) for part in query_and_key)
        return Attention(config)(*padded, in_heads(value, config.value_dim), mask)

    torch.testing.assert_close(attend(key, value), expected)
    # Padded keys and values have no effect.
    other = torch.where(mask[:, :, None], 0.0, 1e4)
    torch.testing.assert_close(attend(key + other, value + other), expected)


@pytest.mark.parametrize("model", ["xfeat", "aliked"])
def test_heads_on_a_gpu_fit_its_fused_attention_and_change_no_match(model):
    """One head of 96 channels and the mask's, and four of 64."""
    config = replace(MODELS[model].matcher, layers=2)
    weights = lightglue_weights(config, SEED)
    mask = torch.arange(40) < torch.tensor([[40], [17], [0]])
    features = 99 * torch.rand(3, 40, 2), mask, F.normalize(torch.randn(3, 40, config.input_dim), dim=2)
    inputs = *features, torch.full((3, 2), 99.0), torch.tensor([[0, 1], [1, 2], [0, 0]]), torch.zeros(1)
    found = {}
    for target in TARGETS:
        matcher = LightGlue.from_state_dict(replace(config, target=target), weights)
        with torch.inference_mode():
            found[target] = matcher(*inputs)
    on_gpu = replace(config, target="gpu")
    assert (on_gpu.key_dim, on_gpu.value_dim) == ({1: 104, 4: 72}[config.heads],) * 2
    assert ((found["cpu"][0] >= 0).sum(dim=1) > torch.tensor([3, -1, 30])).all()
    for target in ("gpu", "portable"):
        torch.testing.assert_close(found[target], found["cpu"], rtol=0, atol=1e-5)


def test_attention_in_int8_is_nearly_the_same_and_ignores_padding():
    query, key, value = torch.randn(3, 2, 9, CONFIG.width)
    mask = torch.rand(2, 9) > 0.3
    attention = QuantisedAttention(CONFIG, *(part.abs().max().item() for part in (query, key, value)))
    found = attention(query, key, value, mask)
    expected = scaled_dot_product_attention(query, key, value, mask)
    assert (found - expected).abs().max() < 0.15
    assert (found - expected).abs().mean() < 0.02
    other = torch.where(mask[:, :, None], 0.0, 1e4)
    assert torch.equal(attention(query, key + other, value + other, mask), found)


def test_a_query_that_attends_to_a_thousand_keys_gets_their_mean_in_int8():
    key, value = torch.randn(2, 2, 1024, CONFIG.width)
    mask = torch.rand(2, 1024) > 0.1
    attention = QuantisedAttention(CONFIG, 1.0, key.abs().max().item(), (value + 3).abs().max().item())
    # Each probability is 1/1024, less than one step.
    found = attention(torch.zeros_like(key), key, value + 3, mask)
    expected = torch.stack([side[known].mean(dim=0) for side, known in zip(value + 3, mask, strict=True)])
    torch.testing.assert_close(found, expected.unsqueeze(1).expand_as(found))


@pytest.mark.parametrize("sharpness", [0.0, 0.05, 40.0])
def test_attention_of_one_head_in_int8_finds_a_key_among_near_ones_and_the_mean_of_hundreds(sharpness):
    """XFeat's logits reach thousands, and a few of them decide; or all keys count the same."""
    config = replace(CONFIG, heads=1)
    query, key, value = torch.randn(3, 2, 300, config.width)
    query *= sharpness
    mask = torch.rand(2, 300) > 0.1
    expected = F.scaled_dot_product_attention(query, key, value, mask.unsqueeze(1), scale=1.0)
    attention = AttentionOfOneHead(config, value.abs().max().item())

    def attend(key, value):
        return attention(*(F.pad(part, (0, 1), value=1.0) for part in (query, key)), value, mask)

    found = attend(key, value)
    assert (found - expected).abs().max() < 0.03
    other = torch.where(mask[:, :, None], 0.0, 1e4)
    assert torch.equal(attend(key, value + other), found)
