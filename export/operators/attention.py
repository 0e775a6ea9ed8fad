"""Rotary encoding and attention of LightGlue."""

from __future__ import annotations

from typing import Any

import torch
from onnxscript import opset18
from torch import Tensor
from torch.nn.functional import embedding

from lightglue_ros.export.operators import registration
from lightglue_ros.export.operators.registration import FLOAT, INTEGER, onnx_form, operator

_ROTARY_INPUTS = "input", "position_ids", "cos_cache", "sin_cache"
_rotary_embedding = registration.onnxruntime_operator(
    "RotaryEmbedding", _ROTARY_INPUTS, num_heads=INTEGER, rotary_embedding_dim=INTEGER
)
_multi_head_attention = registration.onnxruntime_operator(
    "MultiHeadAttention", ("query", "key", "value"), num_heads=INTEGER, scale=FLOAT
)


def rotate(values: Tensor, rows: Tensor, cosines: Tensor, sines: Tensor, heads: int, channels: int) -> Tensor:
    """Apply the rotary encoding of position: turn channel c of each head with channel c + channels / 2.

    Args:
        values: [S, K, heads * C], C at least `channels`; further channels stay as they are.
        rows: int64 [S, K], row of each vector in `cosines` and `sines`.
        cosines: [R, C] or wider, 1 in further channels.
        sines: like cosines, with the opposite sign in the first channels / 2, and 0 in further channels.
    """
    by_head = values.unflatten(2, (heads, -1))
    width, half = by_head.shape[3], channels // 2
    cosine, sine = (embedding(rows, table).unsqueeze(2)[..., :width] for table in (cosines, sines))
    partner = torch.cat([torch.arange(half, channels), torch.arange(half), torch.arange(channels, width)])
    return (by_head * cosine + by_head.index_select(3, partner) * sine).flatten(2)


@operator(lambda values, *_: torch.empty_like(values))
def rotary_embedding(
    values: Tensor, rows: Tensor, cosines: Tensor, sines: Tensor, heads: int, channels: int
) -> Tensor:
    """Compute `rotate` from cosines and sines [R, channels / 2], by an operator of ONNX Runtime.

    On a GPU this operator fails if there is no pair, see `NeverEmptyMatcher`.
    """
    by_head = values.unflatten(2, (heads, -1))
    first, second = by_head[..., : channels // 2], by_head[..., channels // 2 : channels]
    cosine, sine = (table[rows].unsqueeze(2) for table in (cosines, sines))
    turned = [first * cosine - second * sine, second * cosine + first * sine, by_head[..., channels:]]
    return torch.cat(turned, dim=3).flatten(2)


@onnx_form("rotary_embedding", target="gpu")
@onnx_form("rotary_embedding", target="cpu")
def _(values: Any, rows: Any, cosines: Any, sines: Any, heads: int, channels: int) -> Any:
    return _rotary_embedding(values, rows, cosines, sines, num_heads=heads, rotary_embedding_dim=channels)


@operator(lambda query, key, value, *_: torch.empty_like(value))
def attend(
    query: Tensor, key: Tensor, value: Tensor, heads: int, key_channels: int, value_channels: int
) -> Tensor:
    """Compute softmax attention of all heads, without a scale and without a mask.

    Query and key are [S, K, heads * key_channels]; value and result are [S, K, heads * value_channels].
    """
    query, key, value = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in (query, key, value))
    messages = (query @ key.transpose(2, 3)).softmax(-1) @ value
    return messages.transpose(1, 2).flatten(2)


@onnx_form("attend")
def _attend(query: Any, key: Any, value: Any, heads: int, key_channels: int, value_channels: int) -> Any:
    if heads == 1:  # without by_head, whose transpositions would copy
        return _softmax_attention(query, opset18.Transpose(key, perm=[0, 2, 1]), value)

    def by_head(part: Any, channels: int, *perm: int) -> Any:
        shape = opset18.Constant(value_ints=[0, 0, heads, channels])
        return opset18.Transpose(opset18.Reshape(part, shape), perm=perm)

    messages = _softmax_attention(
        by_head(query, key_channels, 0, 2, 1, 3),
        by_head(key, key_channels, 0, 2, 3, 1),
        by_head(value, value_channels, 0, 2, 1, 3),
    )
    side_by_side = opset18.Constant(value_ints=[0, 0, heads * value_channels])
    return opset18.Reshape(opset18.Transpose(messages, perm=[0, 2, 1, 3]), side_by_side)


def _softmax_attention(query: Any, turned_key: Any, value: Any) -> Any:
    return opset18.MatMul(opset18.Softmax(opset18.MatMul(query, turned_key), axis=-1), value)


@onnx_form("attend", target="cpu")
def _(query: Any, key: Any, value: Any, heads: int, key_channels: int, value_channels: int) -> Any:
    if heads == 1:  # measured: the fused operator is no faster
        return _attend(query, key, value, heads, key_channels, value_channels)
    return _multi_head_attention(query, key, value, num_heads=heads, scale=1.0)


@onnx_form("attend", target="gpu")
def _(query: Any, key: Any, value: Any, heads: int, *_: int) -> Any:
    return _multi_head_attention(query, key, value, num_heads=heads, scale=1.0)
