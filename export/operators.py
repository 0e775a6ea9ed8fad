"""Steps that PyTorch has no operator for, or traces into another one than wanted, and their ONNX form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx
import torch
from onnxscript import opset18, opset19
from onnxscript.values import Op, Opset
from torch import Tensor
from torch.nn import functional as F

PADDED = -1e4  # logit of padded keys in int8: exp() makes it 0 beside any real one
PROBABILITY_STEPS = 255  # from 0 to 1 in 8 bits
_INTEGER, _FLOAT = onnx.defs.OpSchema.AttrType.INT, onnx.defs.OpSchema.AttrType.FLOAT


def _operator_of_onnxruntime(name: str, inputs: Sequence[str], output: str = "T0", **attributes: Any) -> Op:
    """An operator of ONNX Runtime's own domain with one output (its docs/ContribOperators.md).

    Args:
        name: of the operator.
        inputs: their names, with a question mark where they may be left out.
        output: type of the output, by default the first input's.
        attributes: their types.
    """
    kinds = onnx.defs.OpSchema.FormalParameterOption
    parameters = [
        onnx.defs.OpSchema.FormalParameter(
            it.rstrip("?"), f"T{number}", param_option=kinds.Optional if it.endswith("?") else kinds.Single
        )
        for number, it in enumerate(inputs)
    ]
    types = ["tensor(float)", "tensor(float16)", "tensor(int64)", "tensor(uint8)", "tensor(int8)"]
    schema = onnx.defs.OpSchema(
        name,
        "com.microsoft",
        1,
        inputs=parameters,
        outputs=[onnx.defs.OpSchema.FormalParameter("output", output)],
        type_constraints=[(parameter.type_str, types, "") for parameter in parameters],
        attributes=[onnx.defs.OpSchema.Attribute(it, kind) for it, kind in attributes.items()],
    )
    return Op(Opset("com.microsoft", 1), name, schema)


_rotary_embedding = _operator_of_onnxruntime(
    "RotaryEmbedding",
    ("input", "position_ids", "cos_cache", "sin_cache"),
    num_heads=_INTEGER,
    rotary_embedding_dim=_INTEGER,
)
_multi_head_attention = _operator_of_onnxruntime(
    "MultiHeadAttention", ("query", "key", "value"), num_heads=_INTEGER, scale=_FLOAT
)
_matmul_integer_to_float = _operator_of_onnxruntime(
    "MatMulIntegerToFloat",
    ("A", "B", "a_scale", "b_scale", "a_zero_point", "b_zero_point?", "bias?"),
    output="tensor(float)",
)


@torch.library.custom_op("lightglue_ros::to_rgb", mutates_args=())
def to_rgb(images: Tensor) -> Tensor:
    """Images uint8 [N, H, W, C], C = 1 (grey) or 3 (RGB), to float32 [N, 3, H, W], 0 to 255.

    Grey becomes three equal channels. An operator of its own, because a tracer can leave C free only where
    nothing depends on it.
    """
    return images.float().permute(0, 3, 1, 2).expand(-1, 3, -1, -1).contiguous()


@to_rgb.register_fake
def _(images: Tensor) -> Tensor:
    count, height, width, _ = images.shape
    return images.new_empty((count, 3, height, width), dtype=torch.float32)


def _onnx_to_rgb(images: Any) -> Any:
    return opset18.Expand(_channels_first(images), opset18.Constant(value_ints=[1, 3, 1, 1]))


def _channels_first(images: Any) -> Any:
    return opset18.Transpose(opset18.Cast(images, to=1), perm=[0, 3, 1, 2])


@torch.library.custom_op("lightglue_ros::to_mean", mutates_args=())
def to_mean(images: Tensor) -> Tensor:
    """Images uint8 [N, H, W, C], C = 1 or 3, to the mean of their channels, float32 [N, 1, H, W], 0 to 255.

    An operator of its own for the reason of `to_rgb`.
    """
    return images.float().mean(dim=3).unsqueeze(1)


@to_mean.register_fake
def _(images: Tensor) -> Tensor:
    count, height, width, _ = images.shape
    return images.new_empty((count, 1, height, width), dtype=torch.float32)


def _onnx_to_mean(images: Any) -> Any:
    return opset18.ReduceMean(_channels_first(images), opset18.Constant(value_ints=[1]), keepdims=1)


@torch.library.custom_op("lightglue_ros::deform_conv2d", mutates_args=())
def deform_conv2d(features: Tensor, offsets: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A 3 x 3 convolution of stride 1, padded with zeros, that reads each tap where the offsets say.

    ONNX's DeformConv (opset 19). Here it is computed tap by tap, to check what ONNX Runtime makes of it.

    Args:
        features: [N, C, H, W].
        offsets: [N, 18, H, W], (y, x) in pixels for each tap, row by row.
        weight: [D, C, 3, 3].
        bias: [D].

    Returns:
        [N, D, H, W].
    """
    height, width = features.shape[2:]
    row = torch.arange(height, dtype=torch.float32).view(-1, 1)
    column = torch.arange(width, dtype=torch.float32)
    size = torch.tensor([width, height])
    result = bias.view(1, -1, 1, 1)
    for tap in range(9):
        y = row + (tap // 3 - 1) + offsets[:, 2 * tap]
        x = column + (tap % 3 - 1) + offsets[:, 2 * tap + 1]
        # From -1 at the outer edge of the first pixel to 1 at that of the last, which a single one has, too.
        grid = (2 * torch.stack([x, y], dim=-1) + 1) / size - 1
        sampled = F.grid_sample(features, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        result = result + F.conv2d(sampled, weight[:, :, tap // 3, tap % 3, None, None])
    return result


@deform_conv2d.register_fake
def _(features: Tensor, offsets: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return features.new_empty((features.shape[0], weight.shape[0], *features.shape[2:]))


def _onnx_deform_conv2d(features: Any, offsets: Any, weight: Any, bias: Any) -> Any:
    return opset19.DeformConv(
        features, weight, offsets, bias, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1]
    )


@torch.library.custom_op("lightglue_ros::compact", mutates_args=())
def compact(keypoints: Tensor, mask: Tensor, descriptors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Leave out the slots that are padded in all images; true slots come first.

    An operator of its own, because how many slots are left depends on what is in the mask.

    Args:
        keypoints: [N, K, 2].
        mask: bool [N, K].
        descriptors: [N, K, D].

    Returns:
        The same with as many slots as the image with the most keypoints has, at least 1.
    """
    most = max(1, int(mask.sum(dim=1).amax())) if len(mask) else 1
    return keypoints[:, :most].clone(), mask[:, :most].clone(), descriptors[:, :most].clone()


@compact.register_fake
def _(keypoints: Tensor, mask: Tensor, descriptors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    most = torch.library.get_ctx().new_dynamic_size(min=2)  # the tracer treats a single slot as special
    return tuple(
        tensor.new_empty((tensor.shape[0], most, *tensor.shape[2:]))
        for tensor in (keypoints, mask, descriptors)
    )


def _onnx_compact(keypoints: Any, mask: Any, descriptors: Any) -> Any:
    zero, one = opset18.Constant(value_ints=[0]), opset18.Constant(value_ints=[1])
    most = _onnx_most(mask)
    return tuple(opset18.Slice(tensor, zero, most, one) for tensor in (keypoints, mask, descriptors))


def _onnx_most(mask: Any) -> Any:
    """How many are true in the row that has the most, at least 1: int64 [1]."""
    zero, one = opset18.Constant(value_ints=[0]), opset18.Constant(value_ints=[1])
    counts = opset18.ReduceSum(opset18.Cast(mask, to=7), one, keepdims=0)
    return opset18.ReduceMax(opset18.Concat(counts, one, axis=0), zero)


@torch.library.custom_op("lightglue_ros::where_true", mutates_args=())
def where_true(chosen: Tensor) -> Tensor:
    """Indices int64 [F] of what is true in bool [P].

    An operator of its own, because a tracer makes NonZero of it, the slowest operator there is on a GPU.
    """
    return chosen.nonzero().squeeze(1)


@where_true.register_fake
def _(chosen: Tensor) -> Tensor:
    return chosen.new_empty((torch.library.get_ctx().new_dynamic_size(min=2),), dtype=torch.int64)


def _onnx_where_true(chosen: Any) -> Any:
    zero, one = opset18.Constant(value_int=0), opset18.Constant(value_int=1)
    count = opset18.Squeeze(opset18.Shape(chosen))
    return opset18.Compress(opset18.Range(zero, count, one), chosen, axis=0)


@torch.library.custom_op("lightglue_ros::first_slots", mutates_args=())
def first_slots(values: Tensor, keep: Tensor) -> Tensor:
    """As many columns of values [S, K] as the row with the most true in keep [S, K] has, at least 1."""
    most = max(1, int(keep.sum(dim=1).amax())) if len(keep) else 1
    return values[:, :most].clone()


@first_slots.register_fake
def _(values: Tensor, keep: Tensor) -> Tensor:
    return values.new_empty((values.shape[0], torch.library.get_ctx().new_dynamic_size(min=2)))


def _onnx_first_slots(values: Any, keep: Any) -> Any:
    zero, one = opset18.Constant(value_ints=[0]), opset18.Constant(value_ints=[1])
    return opset18.Slice(values, zero, _onnx_most(keep), one)


@torch.library.custom_op("lightglue_ros::rotate", mutates_args=())
def rotate(values: Tensor, rows: Tensor, cosines: Tensor, sines: Tensor, heads: int, channels: int) -> Tensor:
    """Rotary encoding of position: turns the first channels of each head, channel c with channels / 2 + c.

    Args:
        values: [S, K, heads * C], C at least `channels`.
        rows: int64 [S, K], where the cosines and sines of each vector stand.
        cosines: [R, channels / 2].
        sines: [R, channels / 2].
        heads: how many heads lie side by side.
        channels: of each head, how many are turned.

    Returns:
        The turned values, same shape.
    """
    by_head = values.unflatten(2, (heads, -1))
    first, second = by_head[..., : channels // 2], by_head[..., channels // 2 : channels]
    cosine, sine = (table[rows].unsqueeze(2) for table in (cosines, sines))
    turned = [first * cosine - second * sine, second * cosine + first * sine, by_head[..., channels:]]
    return torch.cat(turned, dim=3).flatten(2)


@rotate.register_fake
def _(values: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(values)


def _onnx_rotate(values: Any, rows: Any, cosines: Any, sines: Any, heads: int, channels: int) -> Any:
    half = channels // 2
    by_head = opset18.Reshape(values, opset18.Constant(value_ints=[0, 0, heads, values.shape[2] // heads]))
    last, end = opset18.Constant(value_ints=[3]), opset18.Constant(value_ints=[2**31 - 1])
    at = {place: opset18.Constant(value_ints=[place]) for place in (0, half, channels)}
    first = opset18.Slice(by_head, at[0], at[half], last)
    second = opset18.Slice(by_head, at[half], at[channels], last)
    rest = opset18.Slice(by_head, at[channels], end, last)
    heads_axis = opset18.Constant(value_ints=[2])
    cosine, sine = (opset18.Unsqueeze(opset18.Gather(it, rows), heads_axis) for it in (cosines, sines))
    turned = opset18.Concat(
        opset18.Sub(opset18.Mul(first, cosine), opset18.Mul(second, sine)),
        opset18.Add(opset18.Mul(second, cosine), opset18.Mul(first, sine)),
        rest,
        axis=3,
    )
    return opset18.Reshape(turned, opset18.Constant(value_ints=[0, 0, values.shape[2]]))


def _fused_rotate(values: Any, rows: Any, cosines: Any, sines: Any, heads: int, channels: int) -> Any:
    return _rotary_embedding(values, rows, cosines, sines, num_heads=heads, rotary_embedding_dim=channels)


@torch.library.custom_op("lightglue_ros::attend", mutates_args=())
def attend(
    query: Tensor, key: Tensor, value: Tensor, heads: int, key_channels: int, value_channels: int
) -> Tensor:
    """Softmax attention of heads that lie side by side, without a scale and without a mask.

    Args:
        query: [S, K, heads * key_channels].
        key: [S, K, heads * key_channels].
        value: [S, K, heads * value_channels].
        heads: number of heads.
        key_channels: of each head of query and key.
        value_channels: of each head of value.

    Returns:
        Messages, as `value`.
    """
    query, key, value = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in (query, key, value))
    messages = (query @ key.transpose(2, 3)).softmax(-1) @ value
    return messages.transpose(1, 2).flatten(2)


@attend.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(value)


def _onnx_attend(query: Any, key: Any, value: Any, heads: int, key_channels: int, value_channels: int) -> Any:
    if heads == 1:  # the same without transpositions, each of which is a copy
        return _onnx_softmax_attention(query, opset18.Transpose(key, perm=[0, 2, 1]), value)

    def by_head(part: Any, channels: int, *perm: int) -> Any:
        shape = opset18.Constant(value_ints=[0, 0, heads, channels])
        return opset18.Transpose(opset18.Reshape(part, shape), perm=perm)

    messages = _onnx_softmax_attention(
        by_head(query, key_channels, 0, 2, 1, 3),
        by_head(key, key_channels, 0, 2, 3, 1),
        by_head(value, value_channels, 0, 2, 1, 3),
    )
    side_by_side = opset18.Constant(value_ints=[0, 0, heads * value_channels])
    return opset18.Reshape(opset18.Transpose(messages, perm=[0, 2, 1, 3]), side_by_side)


def _onnx_softmax_attention(query: Any, turned_key: Any, value: Any) -> Any:
    return opset18.MatMul(opset18.Softmax(opset18.MatMul(query, turned_key), axis=-1), value)


def _fused_attend(
    query: Any, key: Any, value: Any, heads: int, key_channels: int, value_channels: int
) -> Any:
    if heads == 1:  # measured: as fast as the fused operator, or faster
        return _onnx_attend(query, key, value, heads, key_channels, value_channels)
    return _multi_head_attention(query, key, value, num_heads=heads, scale=1.0)


@torch.library.custom_op("lightglue_ros::quantise", mutates_args=())
def quantise(values: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """Values in steps of a scale, rounded to uint8; 0 is the zero point."""
    return (values / scale).round().add(zero_point).clamp(0, 255).to(torch.uint8)


@quantise.register_fake
def _(values: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(values, dtype=torch.uint8)


def _onnx_quantise(values: Any, scale: Any, zero_point: Any) -> Any:
    return opset18.QuantizeLinear(values, scale, zero_point)


@torch.library.custom_op("lightglue_ros::dequantise", mutates_args=())
def dequantise(values: Tensor, scale: Tensor) -> Tensor:
    """uint8 of steps of a scale, 0 being 0, to float32."""
    return values.float() * scale


@dequantise.register_fake
def _(values: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(values, dtype=torch.float32)


def _onnx_dequantise(values: Any, scale: Any) -> Any:
    return opset18.DequantizeLinear(values, scale, opset18.Cast(opset18.Constant(value_int=0), to=2))


@torch.library.custom_op("lightglue_ros::convolve_int8", mutates_args=())
def convolve_int8(
    values: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    weight: Tensor,
    weight_scales: Tensor,
    bias: Tensor,
    scale_out: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
) -> Tensor:
    """Quantised values convolved with quantised kernels, and ReLU of that, quantised again.

    Args:
        values: uint8 [N, C, H, W].
        scale: float32, of the values.
        zero_point: uint8, of the values.
        weight: int8 [D, C, h, w].
        weight_scales: float32 [D].
        bias: int32 [D], in steps of scale times weight_scales.
        scale_out: float32, of the result, in which 0 is 0.
        stride: rows and columns.
        padding: zeros beside the values: left, right, top, bottom.

    Returns:
        uint8 [N, D, H', W'].
    """
    padded = F.pad(values.float() - zero_point.float(), list(padding))
    sums = F.conv2d(padded, weight.float(), bias.float(), stride=list(stride))
    steps = sums * (scale * weight_scales / scale_out).view(-1, 1, 1)
    return steps.round().clamp(0, 255).to(torch.uint8)


@convolve_int8.register_fake
def _(
    values: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    weight: Tensor,
    weight_scales: Tensor,
    bias: Tensor,
    scale_out: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
) -> Tensor:
    result = F.conv2d(F.pad(values.float(), list(padding)), weight.float(), stride=list(stride))
    return result.to(torch.uint8)


def _onnx_convolve_int8(
    values: Any,
    scale: Any,
    zero_point: Any,
    weight: Any,
    weight_scales: Any,
    bias: Any,
    scale_out: Any,
    stride: Sequence[int],
    padding: Sequence[int],
) -> Any:
    left, right, top, bottom = padding
    zeros = opset18.Cast(opset18.Mul(weight_scales, opset18.Constant(value_float=0.0)), to=3)
    zero = opset18.Cast(opset18.Constant(value_int=0), to=2)
    return opset18.QLinearConv(
        values,
        scale,
        zero_point,
        weight,
        weight_scales,
        zeros,
        scale_out,
        zero,
        bias,
        pads=[top, left, bottom, right],
        strides=list(stride),
    )


@torch.library.custom_op("lightglue_ros::multiply_int8", mutates_args=())
def multiply_int8(
    values: Tensor, scale: Tensor, zero_point: Tensor, weight: Tensor, weight_scales: Tensor, bias: Tensor
) -> Tensor:
    """Quantised values times quantised weights, plus an offset, in float32.

    Args:
        values: uint8 [R, I].
        scale: float32, of the values.
        zero_point: uint8, of the values.
        weight: int8 [I, O].
        weight_scales: float32 [O].
        bias: float32 [O].
    """
    centred = values.float() - zero_point.float()
    return centred @ weight.float() * (scale * weight_scales) + bias  # sums below 2^24 are exact in float32


@multiply_int8.register_fake
def _(values: Tensor, scale: Tensor, zero_point: Tensor, weight: Tensor, *_: Any) -> Tensor:
    return values.new_empty((values.shape[0], weight.shape[1]), dtype=torch.float32)


def _onnx_multiply_int8(
    values: Any, scale: Any, zero_point: Any, weight: Any, weight_scales: Any, bias: Any
) -> Any:
    sums = opset18.Cast(opset18.MatMulInteger(values, weight, zero_point), to=1)
    return opset18.Add(opset18.Mul(sums, opset18.Mul(scale, weight_scales)), bias)


def _fused_multiply_int8(
    values: Any, scale: Any, zero_point: Any, weight: Any, weight_scales: Any, bias: Any
) -> Any:
    return _matmul_integer_to_float(values, weight, scale, weight_scales, zero_point, None, bias)


@torch.library.custom_op("lightglue_ros::attend_int8", mutates_args=())
def attend_int8(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    query_scale: Tensor,
    key_scale: Tensor,
    value_scale: Tensor,
    heads: int,
    channels: int,
) -> Tensor:
    """`attend` with queries, keys, probabilities and values quantised, and a mask.

    The mask is one more channel of each head: the largest number in queries, in keys 0 or, in padded ones,
    the least. Padded keys are 0 otherwise, and have a scale of their own, which makes PADDED of their logits.

    Args:
        query: [S, K, heads * channels].
        key: [S, K, heads * channels].
        value: [S, K, heads * channels].
        mask: bool [S, K], of the keys.
        query_scale: float32, of a step of the queries; 127 steps are the largest.
        key_scale: float32, of a step of the keys.
        value_scale: float32, of a step of the values.
        heads: number of heads.
        channels: of each head.

    Returns:
        Messages, as `value`.
    """
    query, key, value = (
        (part / scale).round().unflatten(2, (heads, channels)).transpose(1, 2)
        for part, scale in ((query, query_scale), (key, key_scale), (value, value_scale))
    )
    known = mask[:, None, :, None]
    query = F.pad(query.clamp(-128, 127), (0, 1), value=127)
    key = torch.where(known, key.clamp(-128, 127), 0)
    padding = torch.where(known, 0.0, -128.0).expand(-1, heads, -1, 1)
    scales = query_scale * torch.where(mask, key_scale, -PADDED / (127 * 128) / query_scale)
    logits = query @ torch.cat([key, padding], dim=3).transpose(2, 3) * scales[:, None, None]
    steps = (logits.softmax(-1) * PROBABILITY_STEPS).round()
    messages = steps @ value.clamp(-128, 127) * (value_scale / PROBABILITY_STEPS)
    return messages.transpose(1, 2).flatten(2)


@attend_int8.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(value)


def _split(values: Any, axis: int, parts: int) -> Sequence[Any]:
    return opset18.Split(values, axis=axis, num_outputs=parts) if parts > 1 else [values]


def _attend_int8_with(multiply: Callable) -> Callable:
    def translate(
        query: Any,
        key: Any,
        value: Any,
        mask: Any,
        query_scale: Any,
        key_scale: Any,
        value_scale: Any,
        heads: int,
        channels: int,
    ) -> Any:
        shape = opset18.Constant(value_ints=[0, 0, heads, channels])
        middle = opset18.Cast(opset18.Constant(value_int=128), to=2)
        query = opset18.Reshape(opset18.QuantizeLinear(query, query_scale, middle), shape)
        ends = opset18.Constant(value_ints=[0, 0, 0, 0, 0, 0, 0, 1])
        query = opset18.Pad(query, ends, opset18.Cast(opset18.Constant(value_int=255), to=2))
        zero = opset18.Cast(opset18.Constant(value_int=0), to=3)
        key = opset18.Reshape(opset18.QuantizeLinear(key, key_scale, zero), shape)
        known = opset18.Unsqueeze(mask, opset18.Constant(value_ints=[2, 3]))
        least = opset18.Cast(opset18.Constant(value_int=-128), to=3)
        by_head = opset18.Constant(value_ints=[1, 1, heads, 1])
        padding = opset18.Tile(opset18.Where(known, zero, least), by_head)
        key = opset18.Concat(opset18.Where(known, key, zero), padding, axis=3)
        padded_scale = opset18.Div(opset18.Constant(value_float=-PADDED / (127 * 128)), query_scale)
        scales = opset18.Where(
            opset18.Unsqueeze(mask, opset18.Constant(value_ints=[1])), key_scale, padded_scale
        )
        probability_scale = opset18.Constant(value_float=1 / PROBABILITY_STEPS)
        none = opset18.Cast(opset18.Constant(value_int=0), to=2)
        value = opset18.QuantizeLinear(value, value_scale, zero)
        # One head after another: what lies between two products is smaller then, and nearer to the processor.
        messages = []
        parts = (query, 2), (opset18.Transpose(key, perm=[0, 2, 3, 1]), 1), (value, 2)
        for query, key, value in zip(*(_split(part, axis, heads) for part, axis in parts), strict=True):
            query = opset18.Squeeze(query, opset18.Constant(value_ints=[2]))
            key = opset18.Squeeze(key, opset18.Constant(value_ints=[1]))
            logits = multiply(query, key, query_scale, scales, middle, zero)
            probabilities = opset18.QuantizeLinear(opset18.Softmax(logits, axis=-1), probability_scale, none)
            messages.append(multiply(probabilities, value, probability_scale, value_scale, none, zero))
        return opset18.Concat(*messages, axis=2) if heads > 1 else messages[0]

    return translate


def _onnx_multiply_scaled(
    values: Any, others: Any, scale: Any, other_scale: Any, zero_point: Any, other_zero_point: Any
) -> Any:
    sums = opset18.MatMulInteger(values, others, zero_point, other_zero_point)
    return opset18.Mul(opset18.Cast(sums, to=1), opset18.Mul(scale, other_scale))


def _fused_multiply_scaled(
    values: Any, others: Any, scale: Any, other_scale: Any, zero_point: Any, other_zero_point: Any
) -> Any:
    return _matmul_integer_to_float(values, others, scale, other_scale, zero_point, other_zero_point)


# What `torch.onnx.export` takes as custom_translation_table.
_STANDARD_FORMS: dict[Callable, Callable] = {
    torch.ops.lightglue_ros.to_rgb.default: _onnx_to_rgb,
    torch.ops.lightglue_ros.to_mean.default: _onnx_to_mean,
    torch.ops.lightglue_ros.deform_conv2d.default: _onnx_deform_conv2d,
    torch.ops.lightglue_ros.compact.default: _onnx_compact,
    torch.ops.lightglue_ros.where_true.default: _onnx_where_true,
    torch.ops.lightglue_ros.first_slots.default: _onnx_first_slots,
    torch.ops.lightglue_ros.rotate.default: _onnx_rotate,
    torch.ops.lightglue_ros.attend.default: _onnx_attend,
}
_STANDARD_FORMS |= {
    torch.ops.lightglue_ros.quantise.default: _onnx_quantise,
    torch.ops.lightglue_ros.dequantise.default: _onnx_dequantise,
    torch.ops.lightglue_ros.convolve_int8.default: _onnx_convolve_int8,
    torch.ops.lightglue_ros.multiply_int8.default: _onnx_multiply_int8,
    torch.ops.lightglue_ros.attend_int8.default: _attend_int8_with(_onnx_multiply_scaled),
}
_FUSED_FORMS: dict[Callable, Callable] = {
    torch.ops.lightglue_ros.rotate.default: _fused_rotate,
    torch.ops.lightglue_ros.attend.default: _fused_attend,
    torch.ops.lightglue_ros.multiply_int8.default: _fused_multiply_int8,
    torch.ops.lightglue_ros.attend_int8.default: _attend_int8_with(_fused_multiply_scaled),
}


def onnx_forms(*, fused: bool) -> dict[Callable, Callable]:
    """The operators' ONNX forms; fused ones are ONNX Runtime's own and not in the standard."""
    return _STANDARD_FORMS | (_FUSED_FORMS if fused else {})
