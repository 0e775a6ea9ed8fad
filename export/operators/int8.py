"""Products of 8-bit numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from onnxscript import opset18
from torch import Tensor
from torch.nn import functional as F

from lightglue_ros.export.operators.registration import matmul_integer_to_float, onnx_form, operator

PADDED = -1e4  # logit of padded keys: exp() makes it 0 next to any real logit
LARGEST = 255  # unsigned 8-bit number


@operator(lambda values, *_: torch.empty_like(values, dtype=torch.uint8))
def quantise(values: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """Divide by the scale, add the zero point and round to uint8."""
    return (values / scale).round().add(zero_point).clamp(0, 255).to(torch.uint8)


@onnx_form("quantise")
def _(values: Any, scale: Any, zero_point: Any) -> Any:
    return opset18.QuantizeLinear(values, scale, zero_point)


@operator(lambda values, scale: torch.empty_like(values, dtype=torch.float32))
def dequantise(values: Tensor, scale: Tensor) -> Tensor:
    """Multiply uint8 by the scale: float32. The zero point is 0."""
    return values.float() * scale


@onnx_form("dequantise")
def _(values: Any, scale: Any) -> Any:
    return opset18.DequantizeLinear(values, scale, opset18.Cast(opset18.Constant(value_int=0), to=2))


def _convolved(values: Tensor, scale: Tensor, zero_point: Tensor, weight: Tensor, *others: Any) -> Tensor:
    stride, padding = others[-2:]
    result = F.conv2d(F.pad(values.float(), list(padding)), weight.float(), stride=list(stride))
    return result.to(torch.uint8)


@operator(_convolved)
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
    """Convolve quantised values with quantised kernels, apply ReLU and quantise the result.

    Args:
        values: uint8 [N, C, H, W], with their scale float32 and zero point uint8.
        weight: int8 [D, C, h, w], with weight_scales float32 [D].
        bias: int32 [D], in steps of scale * weight_scales.
        scale_out: float32, scale of the result uint8 [N, D, H', W']; its zero point is 0.
        stride: (rows, columns).
        padding: zeros around the values: left, right, top, bottom.
    """
    padded = F.pad(values.float() - zero_point.float(), list(padding))
    sums = F.conv2d(padded, weight.float(), bias.float(), stride=list(stride))
    steps = sums * (scale * weight_scales / scale_out).view(-1, 1, 1)
    return steps.round().clamp(0, 255).to(torch.uint8)


@onnx_form("convolve_int8")
def _(
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
    inputs = values, scale, zero_point, weight, weight_scales, zeros, scale_out, zero, bias
    return opset18.QLinearConv(*inputs, pads=[top, left, bottom, right], strides=list(stride))


def _multiplied(values: Tensor, scale: Tensor, zero_point: Tensor, weight: Tensor, *_: Any) -> Tensor:
    return values.new_empty((values.shape[0], weight.shape[1]), dtype=torch.float32)


@operator(_multiplied)
def multiply_int8(
    values: Tensor, scale: Tensor, zero_point: Tensor, weight: Tensor, weight_scales: Tensor, bias: Tensor
) -> Tensor:
    """Multiply quantised values with quantised weights and add the bias: float32 [R, O].

    Args:
        values: uint8 [R, I], with their scale float32 and zero point uint8.
        weight: int8 [I, O], with weight_scales float32 [O].
        bias: float32 [O].
    """
    centred = values.float() - zero_point.float()
    return centred @ weight.float() * (scale * weight_scales) + bias  # sums below 2^24 are exact in float32


@onnx_form("multiply_int8")
def _(values: Any, scale: Any, zero_point: Any, weight: Any, weight_scales: Any, bias: Any) -> Any:
    return opset18.Add(_scaled_product(values, weight, scale, weight_scales, zero_point), bias)


@onnx_form("multiply_int8", target="cpu")
def _(values: Any, scale: Any, zero_point: Any, weight: Any, weight_scales: Any, bias: Any) -> Any:
    return matmul_integer_to_float(values, weight, scale, weight_scales, zero_point, None, bias)


@operator(lambda query, key, value, *_: torch.empty_like(value))
def attend_int8(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    scales: Sequence[Tensor],
    heads: int,
    channels: int,
) -> Tensor:
    """Compute `attend` with a mask and with quantised queries, keys, probabilities and values.

    The mask is one more channel of each head. Queries hold the largest 8-bit number there; keys hold 0, and
    padded keys hold the smallest number. All other channels of a padded key are 0. The scale of a padded key
    makes its logits PADDED.

    Args:
        query: [S, K, heads * channels], as are key, value and the result.
        mask: bool [S, K], True for keys that are not padded.
        scales: float32, one step of queries, keys and values; the largest query has 127 steps.
    """
    query_scale, key_scale, value_scale = scales
    query, key, value = (
        (part / scale).round().unflatten(2, (heads, channels)).transpose(1, 2)
        for part, scale in zip((query, key, value), scales, strict=True)
    )
    known = mask[:, None, :, None]
    query = F.pad(query.clamp(-128, 127), (0, 1), value=127)
    key = torch.where(known, key.clamp(-128, 127), 0)
    padding = torch.where(known, 0.0, -128.0).expand(-1, heads, -1, 1)
    logit_scales = query_scale * torch.where(mask, key_scale, -PADDED / (127 * 128) / query_scale)
    logits = query @ torch.cat([key, padding], dim=3).transpose(2, 3) * logit_scales[:, None, None]
    steps = (logits.softmax(-1) * LARGEST).round()
    messages = steps @ value.clamp(-128, 127) * (value_scale / LARGEST)
    return messages.transpose(1, 2).flatten(2)


def _split(values: Any, axis: int, parts: int) -> Sequence[Any]:
    return opset18.Split(values, axis=axis, num_outputs=parts) if parts > 1 else [values]


def _attend_int8_with(multiply: Callable) -> Callable:
    def translate(query: Any, key: Any, value: Any, mask: Any, scales: Any, heads: int, channels: int) -> Any:
        query_scale, key_scale, value_scale = scales
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
        known_rows = opset18.Unsqueeze(mask, opset18.Constant(value_ints=[1]))
        key_scales = opset18.Where(known_rows, key_scale, padded_scale)
        probability_scale = opset18.Constant(value_float=1 / LARGEST)
        none = opset18.Cast(opset18.Constant(value_int=0), to=2)
        value = opset18.QuantizeLinear(value, value_scale, zero)
        # One head at a time: the intermediate results then fit into the processor's caches.
        messages = []
        parts = (query, 2), (opset18.Transpose(key, perm=[0, 2, 3, 1]), 1), (value, 2)
        for query, key, value in zip(*(_split(part, axis, heads) for part, axis in parts), strict=True):
            query = opset18.Squeeze(query, opset18.Constant(value_ints=[2]))
            key = opset18.Squeeze(key, opset18.Constant(value_ints=[1]))
            logits = multiply(query, key, query_scale, key_scales, middle, zero)
            probabilities = opset18.QuantizeLinear(opset18.Softmax(logits, axis=-1), probability_scale, none)
            messages.append(multiply(probabilities, value, probability_scale, value_scale, none, zero))
        return opset18.Concat(*messages, axis=2) if heads > 1 else messages[0]

    return translate


@operator(lambda query, key, value, scale: torch.empty_like(value))
def attend_with_exact_logits(query: Tensor, key: Tensor, value: Tensor, scale: Tensor) -> Tensor:
    """Compute `attend` of one head with quantised probabilities and values.

    The largest probability of each query is LARGEST steps: with steps of 1/255, a query that attends to
    hundreds of keys would lose most of them.

    Args:
        query: [S, K, C], as is key.
        value: [S, K, D], as is the result.
        scale: float32, one step of the values; the largest has 127 steps.
    """
    probabilities = (query @ key.transpose(1, 2)).softmax(-1)
    step = probabilities.amax(dim=2, keepdim=True) / LARGEST
    messages = (probabilities / step).round() @ (value / scale).round().clamp(-128, 127)
    return messages * scale * step


def _attend_with_exact_logits_with(multiply: Callable) -> Callable:
    def translate(query: Any, key: Any, value: Any, scale: Any) -> Any:
        last = opset18.Constant(value_ints=[-1])
        one = opset18.Constant(value_float=1.0)
        none, zero = (opset18.Cast(opset18.Constant(value_int=0), to=kind) for kind in (2, 3))
        logits = opset18.MatMul(query, opset18.Transpose(key, perm=[0, 2, 1]))
        probabilities = opset18.Softmax(logits, axis=-1)
        largest = opset18.ReduceMax(probabilities, last, keepdims=1)
        step = opset18.Mul(largest, opset18.Constant(value_float=1 / LARGEST))
        # QuantizeLinear takes a step for each row of [S * K, K].
        rows = opset18.Reshape(probabilities, opset18.Constant(value_ints=[-1, 0]))
        rows = opset18.QuantizeLinear(rows, opset18.Reshape(step, last), axis=0)
        quantised = opset18.Reshape(rows, opset18.Shape(probabilities))
        value = opset18.QuantizeLinear(value, scale, zero)
        return opset18.Mul(multiply(quantised, value, one, scale, none, zero), step)

    return translate


def _scaled_product(values: Any, others: Any, scale: Any, other_scale: Any, *zero_points: Any) -> Any:
    """Build `matmul_integer_to_float` from standard operators."""
    sums = opset18.MatMulInteger(values, others, *zero_points)
    return opset18.Mul(opset18.Cast(sums, to=1), opset18.Mul(scale, other_scale))


onnx_form("attend_int8")(_attend_int8_with(_scaled_product))
onnx_form("attend_int8", target="cpu")(_attend_int8_with(matmul_integer_to_float))
onnx_form("attend_with_exact_logits")(_attend_with_exact_logits_with(_scaled_product))
onnx_form("attend_with_exact_logits", target="cpu")(_attend_with_exact_logits_with(matmul_integer_to_float))
