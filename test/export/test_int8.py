"""Networks in 8 bits."""

import cv2
import numpy as np
import pytest
import torch
from random_weights import SEED, lightglue_weights

from lightglue_ros.export import MODELS, exporter, selfcheck
from lightglue_ros.export.models.lightglue import LightGlue
from lightglue_ros.export.models.xfeat import XFeat
from lightglue_ros.export.options import ExportOptions
from lightglue_ros.export.precision import int8_extractor, int8_matcher
from lightglue_ros.export.precision.ranges import Moments, Range, quantise_in_turn, quantise_weight
from lightglue_ros.export.weights import fetch


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_a_range_leaves_out_the_rarest_values():
    values = torch.linspace(-1, 1, 10_001)
    values[::5000] = torch.tensor([-90.0, 0.0, 100.0])
    seen = Range()
    seen.see(values)
    assert (seen.least, seen.largest) == pytest.approx((-1, 1), abs=0.01)
    seen.see(values + 5)
    assert (seen.least, seen.largest) == pytest.approx((-1, 6), abs=0.01)


def test_weights_that_are_rounded_in_turn_make_up_for_each_others_errors():
    inputs = torch.randn(500, 4) @ torch.randn(4, 32) + 0.1 * torch.randn(500, 32)
    weight, moments = torch.randn(16, 32), Moments()
    moments.see(inputs)

    def error(rounded, scales):
        return (inputs @ (rounded * scales.unsqueeze(1) - weight).t()).square().mean()

    in_turn = quantise_in_turn(weight, moments.sums)
    assert in_turn[0].dtype == torch.int8
    assert error(*in_turn) < 0.5 * error(*quantise_weight(weight, 0))


def test_more_equal_channels_change_no_results():
    config = MODELS["xfeat"].matcher
    images, extractor = torch.rand(2, 1, 64, 96), XFeat().eval()
    matcher = LightGlue.from_state_dict(config, lightglue_weights(config, SEED))
    mask = torch.arange(40) < torch.tensor([[40], [17]])
    features = 99 * torch.rand(2, 40, 2), mask, torch.randn(2, 40, config.input_dim)
    scene = *features, torch.full((2, 2), 99.0), torch.tensor([[0, 1]]), torch.zeros(1)
    with torch.inference_mode():
        equal_extractor = int8_extractor._equalised(extractor, lambda network: network(images))
        equal_matcher = int8_matcher._equalised(matcher, [scene])
        for network, equal, inputs in (
            (extractor, equal_extractor, [images]),
            (matcher, equal_matcher, scene),
        ):
            torch.testing.assert_close(equal(*inputs), network(*inputs), rtol=1e-4, atol=1e-5)
    changed = equal_extractor.block2[0][0].weight, equal_matcher.layers[0].cross_attention.value.weight
    before = extractor.block2[0][0].weight, matcher.layers[0].cross_attention.value.weight
    assert not any(map(torch.equal, changed, before))


def test_xfeat_in_int8_keeps_four_of_five_matches_of_a_turned_view(motorcycle):
    """The scales come from the pair, and the matches from its mirror image, of which one side is turned."""
    spec = MODELS["xfeat"]
    options = ExportOptions(split=True, max_keypoints=512, precision="int8").settle(spec)
    networks = exporter.load_networks(spec, fetch(spec.weights), options)
    info = exporter.describe(spec, [], options)
    right, left = (np.ascontiguousarray(image[:, ::-1]) for image in motorcycle)
    right = cv2.warpAffine(right, cv2.getRotationMatrix2D((370, 250), 30, 0.8), (741, 500))
    seen, new = (
        selfcheck.Scene("pair", images, [(0, 1)], (640, 448)) for images in (motorcycle, [left, right])
    )
    found = [
        matches(exporter.build_graphs(of_precision, options), new, info)
        for of_precision in (networks, exporter.to_precision(networks, options, [seen], info))
    ]
    assert len(found[0]) > 150
    assert len(found[0] & found[1]) > 0.8 * len(found[0])


def matches(graphs, scene, info):
    """Ends of the matches of a scene's pair, in pixels, as a set of four numbers each."""
    with torch.inference_mode():
        keypoints, mask, *others = selfcheck.features(graphs["extractor"], scene, info)
        partners, *_ = graphs["matcher"](keypoints, mask.float(), mask, *others)
    first = (partners[0] >= 0).nonzero().squeeze(1)
    ends = torch.cat([keypoints[0][first], keypoints[1][partners[0][first].long()]], dim=1)
    return {tuple(row) for row in ends.round().int().tolist()}
