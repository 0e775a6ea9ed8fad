"""Selections whose size depends on the data. As operators they give the tracer one new free length each."""

from __future__ import annotations

from typing import Any

import onnx
import torch
from onnxscript import opset18
from torch import Tensor

from lightglue_ros.export.operators.registration import onnx_form, operator

_NO_PAIR = onnx.helper.make_tensor("no_pair", onnx.TensorProto.INT64, (1, 2), (0, 0))


def _new_length() -> torch.SymInt:
    """Return a new free length. It starts at 2 because the tracer treats a length of 1 as special."""
    return torch.library.get_ctx().new_dynamic_size(min=2)


def _with_new_length(*tensors: Tensor) -> tuple[Tensor, ...]:
    length = _new_length()
    return tuple(tensor.new_empty((tensor.shape[0], length, *tensor.shape[2:])) for tensor in tensors)


@operator(_with_new_length)
def compact(keypoints: Tensor, mask: Tensor, descriptors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Drop the last slots that no image uses; at least 1 slot is left. True slots must come first.

    The tensors are keypoints [N, K, 2], mask bool [N, K] and descriptors [N, K, D].
    """
    most = _most_true(mask)
    return keypoints[:, :most].clone(), mask[:, :most].clone(), descriptors[:, :most].clone()


@onnx_form("compact")
def _(keypoints: Any, mask: Any, descriptors: Any) -> Any:
    most = _onnx_most_true(mask)
    return tuple(_onnx_first(tensor, most) for tensor in (keypoints, mask, descriptors))


@operator(lambda values, keep: _with_new_length(values)[0])
def first_slots(values: Tensor, keep: Tensor) -> Tensor:
    """Return the first columns of values [S, K]: as many as are true in the fullest row of keep [S, K]."""
    return values[:, : _most_true(keep)].clone()


@onnx_form("first_slots")
def _(values: Any, keep: Any) -> Any:
    return _onnx_first(values, _onnx_most_true(keep))


@operator(lambda chosen: chosen.new_empty((_new_length(),), dtype=torch.int64))
def where_true(chosen: Tensor) -> Tensor:
    """Return the indices int64 [F] of the true elements of bool [P].

    The tracer would use NonZero, which is the slowest operator on a GPU.
    """
    return chosen.nonzero().squeeze(1)


@onnx_form("where_true")
def _(chosen: Any) -> Any:
    zero, one = opset18.Constant(value_int=0), opset18.Constant(value_int=1)
    count = opset18.Squeeze(opset18.Shape(chosen))
    return opset18.Compress(opset18.Range(zero, count, one), chosen, axis=0)


@operator(lambda pairs: pairs.new_empty((_new_length(), 2)))
def at_least_one(pairs: Tensor) -> Tensor:
    """Return pairs int64 [P, 2], or the pair (0, 0) if P is 0."""
    return pairs.clone() if len(pairs) else pairs.new_zeros(1, 2)


@onnx_form("at_least_one")
def _(pairs: Any) -> Any:
    one_more = opset18.Concat(pairs, opset18.Constant(value=_NO_PAIR), axis=0)
    return _onnx_first(one_more, opset18.Max(_onnx_length(pairs), opset18.Constant(value_ints=[1])), axis=0)


@operator(lambda values, pairs: values.new_empty((pairs.shape[0], *values.shape[1:])))
def rows_of(values: Tensor, pairs: Tensor) -> Tensor:
    """Return the first rows of values [P or more, ...], as many as there are pairs [P, 2]."""
    return values[: len(pairs)].clone()


@onnx_form("rows_of")
def _(values: Any, pairs: Any) -> Any:
    return _onnx_first(values, _onnx_length(pairs), axis=0)


def _most_true(mask: Tensor) -> int:
    """Count the true elements of the fullest row; at least 1."""
    return max(1, int(mask.sum(dim=1).amax())) if len(mask) else 1


def _onnx_first(values: Any, count: Any, axis: int = 1) -> Any:
    zero = opset18.Constant(value_ints=[0])
    return opset18.Slice(values, zero, count, opset18.Constant(value_ints=[axis]))


def _onnx_length(values: Any) -> Any:
    """Return the length of the first axis: int64 [1]."""
    return opset18.Shape(values, start=0, end=1)


def _onnx_most_true(mask: Any) -> Any:
    """Build `_most_true` in ONNX: int64 [1]."""
    zero, one = opset18.Constant(value_ints=[0]), opset18.Constant(value_ints=[1])
    counts = opset18.ReduceSum(opset18.Cast(mask, to=7), one, keepdims=0)
    return opset18.ReduceMax(opset18.Concat(counts, one, axis=0), zero)
