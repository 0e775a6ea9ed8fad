"""Bicubic interpolation of maps at single places."""

from __future__ import annotations

from typing import Any

from onnxscript import opset18
from torch import Tensor
from torch.nn import functional as F

from lightglue_ros.export.operators.registration import onnx_form, operator

_TAPS = 4  # pixels along each axis
# Weights of the pixels before, at, after and two after a place, as polynomials of their distance: Keys' cubic
# with the constant that PyTorch and ONNX have.
_A = -0.75
_OUTER, _INNER = (_A, -5 * _A, 8 * _A, -4 * _A), (_A + 2, -(_A + 3), 0.0, 1.0)
_COEFFICIENTS = tuple(zip(_OUTER, _INNER, _INNER, _OUTER, strict=True))
_FLOAT, _INT64 = 1, 7  # ONNX's numbers of types


@operator(lambda maps, grid: maps.new_empty((*grid.shape[:2], maps.shape[3])))
def sample_bicubic(maps: Tensor, grid: Tensor) -> Tensor:
    """Interpolate maps [N, H, W, C] at K places of each: [N, K, C]. Pixels outside of a map are 0.

    The grid [N, K, 2] holds (x, y), where -1 and 1 are the outer edges of the first and the last pixel.
    """
    channels_first = maps.permute(0, 3, 1, 2)
    sampled = F.grid_sample(channels_first, grid.unsqueeze(2), mode="bicubic", align_corners=False)
    return sampled.squeeze(3).transpose(1, 2).contiguous()


@onnx_form("sample_bicubic")
def _(maps: Any, grid: Any) -> Any:
    places = opset18.Unsqueeze(grid, opset18.Constant(value_ints=[2]))
    channels_first = opset18.Transpose(maps, perm=[0, 3, 1, 2])
    sampled = opset18.GridSample(channels_first, places, mode="bicubic", align_corners=0)
    return opset18.Transpose(opset18.Squeeze(sampled, opset18.Constant(value_ints=[3])), perm=[0, 2, 1])


@onnx_form("sample_bicubic", target="cpu")
def _(maps: Any, grid: Any) -> Any:
    """Gather the 16 pixels around each place and multiply them by their weights.

    ONNX Runtime's GridSample computes the weights again for each channel.
    """
    rows, columns = (opset18.Shape(maps, start=axis, end=axis + 1) for axis in (1, 2))
    size = opset18.Cast(opset18.Concat(columns, rows, axis=0), to=_FLOAT)
    zero, half, one = (opset18.Constant(value_float=value) for value in (0.0, 0.5, 1.0))
    places = opset18.Sub(opset18.Mul(opset18.Add(grid, one), opset18.Mul(size, half)), half)
    first = opset18.Floor(places)
    last = opset18.Constant(value_ints=[3])
    taps = opset18.Constant(value_floats=[-1.0, 0.0, 1.0, 2.0])
    pixels = opset18.Add(opset18.Unsqueeze(first, last), taps)  # [N, K, (x, y), 4]
    distances = opset18.Abs(opset18.Sub(opset18.Unsqueeze(opset18.Sub(places, first), last), taps))
    most = opset18.Unsqueeze(opset18.Sub(size, one), opset18.Constant(value_ints=[1]))
    inside = opset18.Max(opset18.Min(pixels, most), zero)
    weights = opset18.Mul(_cubic(distances), opset18.Cast(opset18.Equal(inside, pixels), to=_FLOAT))

    x, y = _crossed(inside)
    index = opset18.Cast(opset18.Add(opset18.Mul(y, opset18.Cast(columns, to=_FLOAT)), x), to=_INT64)
    channels = maps.shape[3]
    in_a_row = opset18.Reshape(maps, opset18.Constant(value_ints=[0, -1, channels]))
    chosen = opset18.GatherND(
        in_a_row, opset18.Reshape(index, opset18.Constant(value_ints=[0, -1, 1])), batch_dims=1
    )
    by_place = opset18.Reshape(chosen, opset18.Constant(value_ints=[0, -1, _TAPS**2, channels]))
    of_pixels = opset18.Reshape(
        opset18.Mul(*_crossed(weights)), opset18.Constant(value_ints=[0, -1, 1, _TAPS**2])
    )
    return opset18.Squeeze(opset18.MatMul(of_pixels, by_place), opset18.Constant(value_ints=[2]))


def _cubic(distances: Any) -> Any:
    """Compute the weights of the four pixels [..., 4] from their distances."""
    weights, *others = (opset18.Constant(value_floats=list(power)) for power in _COEFFICIENTS)
    for power in others:
        weights = opset18.Add(opset18.Mul(weights, distances), power)
    return weights


def _crossed(values: Any) -> tuple[Any, Any]:
    """Split [N, K, (x, y), 4] into x [N, K, 1, 4] and y [N, K, 4, 1]."""
    x, y = opset18.Split(values, axis=2, num_outputs=2)
    return x, opset18.Transpose(y, perm=[0, 1, 3, 2])
