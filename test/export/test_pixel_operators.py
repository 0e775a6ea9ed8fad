"""Steps on maps of pixels: each target's form computes what PyTorch computes."""

import numpy as np
import onnxruntime
import pytest
import torch

from lightglue_ros.export.operators import bicubic, images, pixels
from lightglue_ros.export.options import TARGETS
from lightglue_ros.export.tracing import Free, Part, TensorSpec, trace


class Step(torch.nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *values):
        return self.function(*values)


@pytest.fixture(params=TARGETS)
def compute(request):
    """Trace a function with the target's forms; returns its graph, and its results in ONNX Runtime."""

    def compute(function, *values, free=(), outputs=1):
        names = [f"input{number}" for number in range(len(values))]
        specs = {}
        for name, value in zip(names, values, strict=True):
            axes = tuple(
                Free(f"L{axis}") if axis in free else length for axis, length in enumerate(value.shape)
            )
            specs[name] = TensorSpec(value.dtype, axes)
        part = Part("step", Step(function), specs, [f"output{number}" for number in range(outputs)])
        model = trace(part, opset=18, target=request.param)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        inputs = {name: value.numpy() for name, value in zip(names, values, strict=True)}
        return model.graph, [torch.from_numpy(array) for array in session.run(None, inputs)]

    compute.target = request.param
    return compute


@pytest.mark.parametrize(("length", "count", "free"), [(40000, 100, ()), (50, 64, (0, 1))])
def test_the_best_of_a_row_are_found_in_chunks_too(compute, length, count, free):
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(0, 2000, (3, length), generator=generator) / 1000  # many are equal
    values[1] = 0
    expected = torch.nn.functional.pad(values, (0, count)).topk(count, dim=1)[0]
    _, (best, places) = compute(lambda row: pixels.best_of(row, count), values, free=free, outputs=2)
    assert torch.equal(best, expected)
    found = best > 0
    assert torch.equal(values.gather(1, torch.where(found, places, 0))[found], best[found])
    for row, is_found in zip(places, found, strict=True):
        assert len(row[is_found].unique()) == is_found.sum(), "no place twice"


def test_places_beyond_the_range_of_float16_are_divided_as_integers(compute):
    places = torch.tensor([[0, 639, 640, 65505, 307199, 2**24 + 1]])
    graph, (quotient,) = compute(lambda index: pixels.quotient(index, 640), places)
    assert torch.equal(quotient, places // 640)
    assert not any(node.op_type == "Cast" for node in graph.node)


def test_what_is_left_out_is_zero_even_where_it_overflowed(compute):
    values = torch.tensor([[1.0, -2.0, 3.0]])
    if compute.target != "cpu":  # there nothing overflows, because all of it is float32
        values = torch.cat([values, torch.tensor([[torch.inf, torch.nan, -torch.inf]])])
    mask = torch.tensor([[True, False, True]])
    if len(values) == 2:
        mask = torch.cat([mask, ~torch.ones_like(mask)])
    _, (kept,) = compute(pixels.kept, values, mask)
    assert torch.equal(kept[0], torch.tensor([1.0, 0.0, 3.0]))
    assert not kept[1:].any()


def test_only_images_of_more_than_one_colour_have_contrast(compute):
    colours = torch.zeros(4, 3, 40, 50)
    colours[1] = torch.tensor([0.2, 0.5, 1.0]).view(3, 1, 1)
    colours[2] = torch.rand(3, 40, 50, generator=torch.Generator().manual_seed(0))
    colours[3, 1, -1, -1] = 1 / 255
    _, (found,) = compute(pixels.has_contrast, colours)
    assert found.flatten().tolist() == [False, False, True, True]


@pytest.mark.parametrize("type_", [torch.float32, torch.float16])
def test_instance_normalisation_is_as_close_to_float64_as_it_must_be(compute, type_):
    """On a GPU the sums are cuDNN's. Here they are those of ONNX Runtime on a CPU."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 3, 96, 128, generator=generator) * torch.tensor([1.0, 0.1, 5.0]).view(3, 1, 1)
    maps[1] += 4
    maps[0, 2] = 0  # such as a black image
    maps = maps.to(type_)
    wide = maps.double()
    mean, variance = wide.mean((2, 3), keepdim=True), wide.var((2, 3), keepdim=True, unbiased=False)
    expected = (wide - mean) / (variance + 1e-5).sqrt()
    _, (found,) = compute(pixels.normalise, maps)
    assert found.dtype == type_
    largest = {torch.float32: 5e-5, torch.float16: 5e-3}[type_]
    assert (found.double() - expected).abs().max() <= largest


def test_maps_are_interpolated_at_rows_and_columns(compute):
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(3, 8, 5, generator=generator)
    y, x = (torch.arange(8 * count) / 8 - 0.5 for count in (8, 5))
    y[20] = x[7] = -2  # outside
    grid = torch.stack(torch.meshgrid((x + 0.5) / 5, (y + 0.5) / 8, indexing="xy"), dim=-1) * 2 - 1
    expected = torch.nn.functional.grid_sample(
        maps.unsqueeze(1), grid.expand(3, -1, -1, -1), align_corners=False
    ).squeeze(1)
    _, (found,) = compute(lambda it: pixels.resample(it, y, x), maps, free=(0,))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("channels", "free"), [(1, ()), (3, ()), (3, (0, 1, 2, 3))])
def test_channels_are_averaged(compute, channels, free):
    colours = torch.randint(0, 256, (2, 20, 32, channels), dtype=torch.uint8)
    _, (found,) = compute(images.to_grey, colours, free=free)
    expected = colours.double().mean(dim=3).unsqueeze(1) / 255
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=0, atol=1e-6)


def test_the_softmax_is_over_the_channels(compute):
    logits = torch.randn(2, 65, 4, 5, generator=torch.Generator().manual_seed(0)) * 30
    _, (found,) = compute(lambda it: pixels.softmax_of_channels(it, *it.shape[2:]), logits)
    torch.testing.assert_close(found, logits.softmax(dim=1), rtol=0, atol=1e-6)


def test_vectors_get_length_1_and_zeros_stay_zeros(compute):
    vectors = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    vectors[1, 2] = 0
    _, (found,) = compute(pixels.unit_vectors, vectors)
    torch.testing.assert_close(found, torch.nn.functional.normalize(vectors, dim=2), rtol=0, atol=1e-6)


@pytest.mark.parametrize("free", [(), (0, 1)])
def test_the_four_corners_of_each_place_are_summed(compute, free):
    weighted = torch.rand(2, 5, 12, 8, generator=torch.Generator().manual_seed(0))
    _, (found,) = compute(pixels.sum_corners, weighted, free=free)
    torch.testing.assert_close(found, weighted.view(2, 5, 4, 3, 8).sum(dim=2), rtol=0, atol=1e-6)


def test_maps_are_interpolated_as_by_pytorch_also_over_their_edges_and_beyond(compute):
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(2, 7, 9, 5, generator=generator)
    grid = torch.rand(2, 40, 2, generator=generator) * 2.8 - 1.4
    grid[:, :2] = torch.tensor([[-1.0, 1.0], [0.0, 0.0]])
    expected = torch.nn.functional.grid_sample(
        maps.permute(0, 3, 1, 2), grid.unsqueeze(2), mode="bicubic", align_corners=False
    )
    _, (found,) = compute(bicubic.sample_bicubic, maps, grid, free=(0, 1))
    assert (expected == 0).any(), "some places are too far outside"
    torch.testing.assert_close(found, expected.squeeze(3).transpose(1, 2), rtol=0, atol=1e-5)
