"""Steps on maps of pixels that are fast in one form on CPUs and in another on GPUs."""

from __future__ import annotations

from typing import Any

import torch
from onnxscript import opset18
from torch import Tensor
from torch.nn import functional as F

from lightglue_ros.export.operators.registration import onnx_form, operator

EPSILON = 1e-5  # PyTorch's default of instance and batch normalisation
# Pixels in which a GPU looks for the best at once. ONNX Runtime's TopK has one block of 256 threads for each
# row, and the 300,000 pixels of a VGA image in one row would take most of XFeat's extraction.
CHUNK = 16384
SHORTEST = 1e-12  # length of vectors that are scaled to length 1
_FLOAT = 1  # ONNX's numbers of types
_INT32 = 6


def _best(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    best = values.new_empty((values.shape[0], count))
    return best, torch.empty_like(best, dtype=torch.int64)


@operator(_best)
def best_of(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Find the highest values of each row [N, M], best first: values and places int64, both [N, count].

    `count` may exceed M. The values that are missing are 0, and their places may lie outside of the row.
    """
    best, places = F.pad(values, (0, count)).topk(count, dim=1)
    return best, places


@onnx_form("best_of")
def _(values: Any, count: int) -> Any:
    padded = opset18.Pad(values, opset18.Constant(value_ints=[0, 0, 0, count]))
    return opset18.TopK(padded, opset18.Constant(value_ints=[count]), axis=1)


@onnx_form("best_of", target="cpu")
def _(values: Any, count: int) -> Any:
    """Pad the result, because a padded row of pixels is a copy of all of them."""
    wanted = opset18.Constant(value_ints=[count])
    there = opset18.Min(opset18.Shape(values, start=1), wanted)
    pads = opset18.Concat(opset18.Constant(value_ints=[0, 0, 0]), opset18.Sub(wanted, there), axis=0)
    best, places = opset18.TopK(values, there, axis=1)
    return opset18.Pad(best, pads), opset18.Pad(places, pads)


@onnx_form("best_of", target="gpu")
def _(values: Any, count: int) -> Any:
    length = max(CHUNK, count)  # the best of all may lie in one chunk
    size, wanted = opset18.Constant(value_ints=[length]), opset18.Constant(value_ints=[count])
    missing = opset18.Mod(opset18.Neg(opset18.Shape(values, start=1)), size)
    pads = opset18.Concat(opset18.Constant(value_ints=[0, 0, 0]), missing, axis=0)
    chunks = opset18.Reshape(opset18.Pad(values, pads), opset18.Constant(value_ints=[0, -1, length]))
    of_chunks, places = opset18.TopK(chunks, wanted, axis=2)
    in_a_row = opset18.Constant(value_ints=[0, -1])
    best, chosen = opset18.TopK(opset18.Reshape(of_chunks, in_a_row), wanted, axis=1)
    before = opset18.Mul(opset18.Div(chosen, wanted), size)  # pixels in the chunks before
    return best, opset18.Add(
        opset18.GatherElements(opset18.Reshape(places, in_a_row), chosen, axis=1), before
    )


@operator(lambda values, divisor: torch.empty_like(values))
def quotient(values: Tensor, divisor: int) -> Tensor:
    """Divide int64 values, 0 or more, and round down.

    The tracer would divide as floats, and float16, which TensorRT may choose, ends at 65504.
    """
    return torch.div(values, divisor, rounding_mode="trunc")


@onnx_form("quotient")
def _(values: Any, divisor: Any) -> Any:
    return opset18.Div(values, opset18.Constant(value_int=divisor) if isinstance(divisor, int) else divisor)


@operator(lambda values, mask: torch.empty_like(values))
def kept(values: Tensor, mask: Tensor) -> Tensor:
    """Keep float values where the mask bool is True, else 0; the mask is broadcast.

    On a CPU this is a product, which takes ONNX Runtime less time. Elsewhere values may have overflowed in
    float16, and infinity times 0 is not a number.
    """
    return torch.where(mask, values, 0.0)


@onnx_form("kept")
def _kept(values: Any, mask: Any) -> Any:
    zero = opset18.Cast(opset18.Constant(value_float=0.0), to=int(values.dtype))
    return opset18.Where(mask, values, zero)


@onnx_form("kept", target="cpu")
def _kept_on_cpu(values: Any, mask: Any) -> Any:
    return opset18.Mul(values, opset18.Cast(mask, to=int(values.dtype)))


@operator(lambda values, one, other: torch.empty_like(values))
def kept_by_both(values: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Keep float values where both masks bool are True, else 0; the masks are broadcast.

    The masks meet first, because a mask and a mask take a tenth of the time of values and a mask.
    """
    return torch.where(one & other, values, 0.0)


@onnx_form("kept_by_both")
def _(values: Any, one: Any, other: Any) -> Any:
    return _kept(values, opset18.And(one, other))


@onnx_form("kept_by_both", target="cpu")
def _(values: Any, one: Any, other: Any) -> Any:
    return _kept_on_cpu(values, opset18.And(one, other))


@operator(lambda images: images.new_empty((images.shape[0], 1, 1, 1), dtype=torch.bool))
def has_contrast(images: Tensor) -> Tensor:
    """Find which of images [N, C, H, W] have more than one colour: bool [N, 1, 1, 1]."""
    differs = images.amax(dim=(2, 3)) > images.amin(dim=(2, 3))
    return differs.any(dim=1)[:, None, None, None]


@onnx_form("has_contrast")
def _(images: Any) -> Any:
    pixels, one = opset18.Constant(value_ints=[2, 3]), opset18.Constant(value_ints=[1])
    most, least = opset18.ReduceMax(images, pixels), opset18.ReduceMin(images, pixels)
    differs = opset18.Cast(opset18.Greater(most, least), to=_INT32)
    return opset18.Cast(opset18.ReduceMax(differs, one), to=9)


@onnx_form("has_contrast", target="gpu")
def _(images: Any) -> Any:
    """Add the distances from the first pixel: ONNX Runtime's sums are fast, its maxima are cuDNN's."""
    zero, one = opset18.Constant(value_ints=[0, 0]), opset18.Constant(value_ints=[1, 1])
    first = opset18.Slice(images, zero, one, opset18.Constant(value_ints=[2, 3]))
    distances = opset18.Abs(opset18.Sub(images, first))
    total = opset18.ReduceSum(distances, opset18.Constant(value_ints=[1, 2, 3]))
    return opset18.Greater(total, opset18.Constant(value_float=0.0))


@operator(lambda maps: torch.empty_like(maps))
def normalise(maps: Tensor) -> Tensor:
    """Apply instance normalisation without weights to [N, C, H, W], in float32 whatever the type.

    Written out, rows before columns, because ONNX Runtime's own operator sums a whole map in one float32 and
    is off by 1e-4 of the largest value on a CPU.
    """
    wide = maps.float()
    rows = wide.mean(dim=3)
    mean = _mean(rows)
    mean = mean + _mean(rows - mean)  # without its rounding error
    centred = wide - mean.unsqueeze(3)
    variance = _mean((centred * centred).mean(dim=3)).unsqueeze(3)
    return (centred / (variance + EPSILON).sqrt()).to(maps.dtype)


def _mean(rows: Tensor) -> Tensor:
    """Average [N, C, H] to [N, C, 1]."""
    # Doubled because ONNX Runtime adds up a single row in another order than one row of several.
    return torch.cat([rows, rows], dim=1).mean(dim=2, keepdim=True)[:, : rows.shape[1]]


def _onnx_mean(rows: Any, channels: int) -> Any:
    """Build `_mean` in ONNX."""
    at = {place: opset18.Constant(value_ints=[place]) for place in (0, 1, 2, channels)}
    twice = opset18.ReduceMean(opset18.Concat(rows, rows, axis=1), at[2])
    return opset18.Slice(twice, at[0], at[channels], at[1])


@onnx_form("normalise")
def _normalise(maps: Any) -> Any:
    channels, kind = maps.shape[1], int(maps.dtype)
    wide = maps if kind == _FLOAT else opset18.Cast(maps, to=_FLOAT)
    last = opset18.Constant(value_ints=[3])
    rows = opset18.ReduceMean(wide, last, keepdims=0)
    mean = _onnx_mean(rows, channels)
    mean = opset18.Add(mean, _onnx_mean(opset18.Sub(rows, mean), channels))
    centred = opset18.Sub(wide, opset18.Unsqueeze(mean, last))
    squares = opset18.ReduceMean(opset18.Mul(centred, centred), last, keepdims=0)
    variance = opset18.Unsqueeze(_onnx_mean(squares, channels), last)
    deviation = opset18.Sqrt(opset18.Add(variance, opset18.Constant(value_float=EPSILON)))
    normal = opset18.Div(centred, deviation)
    return normal if kind == _FLOAT else opset18.Cast(normal, to=kind)


@onnx_form("normalise", target="gpu")
def _(maps: Any) -> Any:
    """One map by means over all its pixels, several by one operator.

    That operator has one block of threads for each map: 112 µs on an H100 for XFeat's grey images, where the
    means take 20. It reads float16 as it is and adds up in float32. It is not for several maps in float32:
    DISK's scores would differ by 5e-4 of the best where a CPU runs the file, as in the check of each export.
    """
    kind = int(maps.dtype)
    if maps.shape[1] == 1:
        wide = maps if kind == _FLOAT else opset18.Cast(maps, to=_FLOAT)
        pixels = opset18.Constant(value_ints=[2, 3])
        centred = opset18.Sub(wide, opset18.ReduceMean(wide, pixels))
        variance = opset18.ReduceMean(opset18.Mul(centred, centred), pixels)
        deviation = opset18.Sqrt(opset18.Add(variance, opset18.Constant(value_float=EPSILON)))
        normal = opset18.Div(centred, deviation)
        return normal if kind == _FLOAT else opset18.Cast(normal, to=kind)
    if kind == _FLOAT:
        return _normalise(maps)
    ones, zeros = (
        opset18.Cast(opset18.Constant(value_floats=[value] * maps.shape[1]), to=kind) for value in (1.0, 0.0)
    )
    return opset18.InstanceNormalization(maps, ones, zeros, epsilon=EPSILON)


@operator(lambda maps, y, x: maps.new_empty((maps.shape[0], y.shape[0], x.shape[0])))
def resample(maps: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Interpolate maps [N, h, w] bilinearly at each y [8 h] and x [8 w]: [N, 8 h, 8 w]. Outside are zeros.

    h is a multiple of 4. Each y lies near the pixel that it stands for: y[32 i] to y[32 i + 31] are between
    4 i - 1 and 4 i + 4, or -2 for a row of zeros.
    """
    return _tent(y, maps.shape[1]) @ maps @ _tent(x, maps.shape[2]).transpose(0, 1)


def _tent(places: Tensor, count: int) -> Tensor:
    """Compute the weight [P, count] of each pixel at each place [P]: 1 there, 0 from a distance of 1."""
    return F.relu(1 - (places.unsqueeze(1) - torch.arange(count)).abs())


def _onnx_tent(places: Any, pixels: Any) -> Any:
    """Build weights from the distances of places and int64 pixels, whose shapes broadcast."""
    distances = opset18.Abs(opset18.Sub(places, opset18.Cast(pixels, to=_FLOAT)))
    return opset18.Relu(opset18.Sub(opset18.Constant(value_float=1.0), distances))


def _onnx_weights(places: Any, maps: Any, axis: int) -> Any:
    """Build `_tent` for the pixels along an axis of maps."""
    pixels = _range(maps, axis, step=1)
    return _onnx_tent(opset18.Unsqueeze(places, opset18.Constant(value_ints=[1])), pixels)


def _range(maps: Any, axis: int, step: int) -> Any:
    zero, step = opset18.Constant(value_int=0), opset18.Constant(value_int=step)
    return opset18.Range(zero, opset18.Squeeze(opset18.Shape(maps, start=axis, end=axis + 1)), step)


@onnx_form("resample")
def _(maps: Any, y: Any, x: Any) -> Any:
    columns = opset18.Transpose(_onnx_weights(x, maps, 2), perm=[1, 0])
    return opset18.MatMul(opset18.MatMul(_onnx_weights(y, maps, 1), maps), columns)


@onnx_form("resample", target="cpu")
def _(maps: Any, y: Any, x: Any) -> Any:
    """Compute 32 rows from the 6 rows of a map that they lie between: 0.1 ms for a VGA image.

    A product with all rows of the map takes 0.3 ms.
    """
    one = opset18.Constant(value_ints=[1])
    first = opset18.Unsqueeze(_range(maps, 1, step=4), one)
    pixels = opset18.Add(first, opset18.Constant(value_ints=[-1, 0, 1, 2, 3, 4]))
    places = opset18.Reshape(y, opset18.Constant(value_ints=[-1, 32, 1]))
    rows = _onnx_tent(places, opset18.Unsqueeze(pixels, one))
    columns = opset18.Transpose(_onnx_weights(x, maps, 2), perm=[1, 0])
    ringed = opset18.Pad(opset18.MatMul(maps, columns), opset18.Constant(value_ints=[0, 1, 0, 0, 1, 0]))
    product = opset18.MatMul(rows, opset18.Gather(ringed, opset18.Add(pixels, one), axis=1))
    shape = opset18.Concat(opset18.Constant(value_ints=[0, -1]), opset18.Shape(x), axis=0)
    return opset18.Reshape(product, shape)


@onnx_form("resample", target="gpu")
def _(maps: Any, y: Any, x: Any) -> Any:
    """Repeat the rows for each map.

    Else ONNX Runtime takes a product for which the host lists the maps' addresses, in memory that it frees. A
    CUDA graph would read this memory at each replay.
    """
    images = opset18.Shape(maps, end=1)
    shape = opset18.Concat(images, opset18.Constant(value_ints=[1, 1]), axis=0)
    product = opset18.MatMul(opset18.Expand(_onnx_weights(y, maps, 1), shape), maps)
    return opset18.MatMul(product, opset18.Transpose(_onnx_weights(x, maps, 2), perm=[1, 0]))


@operator(lambda logits, height, width: torch.empty_like(logits))
def softmax_of_channels(logits: Tensor, height: int, width: int) -> Tensor:
    """Compute the softmax over the channels of [N, C, height, width].

    Written out because ONNX Runtime is slow at this softmax on a CPU. The sum is a convolution because ONNX
    Runtime's sum over channels adds in another order for one image than for several, which moves scores by
    2e-7.
    """
    exponentials = (logits - logits.amax(dim=1, keepdim=True)).exp()
    return exponentials / F.conv2d(exponentials, torch.ones(1, logits.shape[1], 1, 1))


@onnx_form("softmax_of_channels")
def _(logits: Any, height: Any, width: Any) -> Any:
    highest = opset18.ReduceMax(logits, opset18.Constant(value_ints=[1]))
    exponentials = opset18.Exp(opset18.Sub(logits, highest))
    shape = opset18.Constant(value_ints=[1, logits.shape[1], 1, 1])
    ones = opset18.Expand(opset18.Constant(value_floats=[1.0]), shape)
    return opset18.Div(exponentials, opset18.Conv(exponentials, ones))


@onnx_form("softmax_of_channels", target="cpu")
def _(logits: Any, height: Any, width: Any) -> Any:
    """Make the channels of a pixel a row: 0.2 ms less than written out, for XFeat and a VGA image.

    The rows are [N, H W, C], because ONNX Runtime would undo the transposition of [N, H, W, C].
    """
    channels = logits.shape[1]
    pixels_first = opset18.Transpose(logits, perm=[0, 2, 3, 1])
    rows = opset18.Softmax(opset18.Reshape(pixels_first, opset18.Constant(value_ints=[0, -1, channels])))
    shape = opset18.Concat(
        opset18.Constant(value_ints=[0, channels]), _as_list(height), _as_list(width), axis=0
    )
    return opset18.Reshape(opset18.Transpose(rows, perm=[0, 2, 1]), shape)


def _as_list(number: Any) -> Any:
    """Build an int64 tensor of one dimension from a number, or from a free length."""
    if isinstance(number, int):
        return opset18.Constant(value_ints=[number])
    return opset18.Reshape(number, opset18.Constant(value_ints=[1]))


@onnx_form("softmax_of_channels", target="gpu")
def _(logits: Any, height: Any, width: Any) -> Any:
    return opset18.Softmax(logits, axis=1)


@operator(lambda weighted: weighted.unflatten(2, (4, -1))[:, :, 0].clone())
def sum_corners(weighted: Tensor) -> Tensor:
    """Sum [N, M, 4 R, C], in the order of `models.maps.bilinear_corners`, to [N, M, R, C]."""
    return weighted.unflatten(2, (4, -1)).sum(dim=2)


@onnx_form("sum_corners")
def _(weighted: Any) -> Any:
    kind = int(weighted.dtype)
    wide = weighted if kind == _FLOAT else opset18.Cast(weighted, to=_FLOAT)
    by_corner = opset18.Reshape(wide, opset18.Constant(value_ints=[0, 0, 4, -1, weighted.shape[3]]))
    total = opset18.ReduceSum(by_corner, opset18.Constant(value_ints=[2]), keepdims=0)
    return total if kind == _FLOAT else opset18.Cast(total, to=kind)


@onnx_form("sum_corners", target="gpu")
def _(weighted: Any) -> Any:
    """Without a reduction, which would be cuDNN's, and for which float16 would be cast to float32."""
    return opset18.Sum(*opset18.Split(weighted, axis=2, num_outputs=4))


@operator(lambda vectors: torch.empty_like(vectors))
def unit_vectors(vectors: Tensor) -> Tensor:
    """Scale the last axis of float32 values to length 1; zeros stay zeros."""
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp_min(SHORTEST)


@onnx_form("unit_vectors")
def _(vectors: Any) -> Any:
    lengths = opset18.ReduceL2(vectors, opset18.Constant(value_ints=[-1]))
    return opset18.Div(vectors, opset18.Max(lengths, opset18.Constant(value_float=SHORTEST)))


@onnx_form("unit_vectors", target="cpu")
def _(vectors: Any) -> Any:
    """One operator: 0.12 ms for XFeat's map of a VGA image, for which the others take 0.3 ms."""
    return opset18.LpNormalization(vectors, axis=-1, p=2)
