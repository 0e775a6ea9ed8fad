"""Selections whose size depends on the data. As operators they give the tracer one new free length each."""

from __future__ import annotations

from typing import Any

import torch
from onnxscript import opset18
from torch import Tensor

from lightglue_ros.export.operators.registration import onnx_form, operator


@operator
def compact(keypoints: Tensor, mask: Tensor, descriptors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Drop the last slots that no image uses. True slots must come first.

    Args:
        keypoints: [N, K, 2].
        mask: bool [N, K].
        descriptors: [N, K, D].

    Returns:
        The three tensors with as many slots as the image with the most keypoints needs, at least 1.
    """
    most = _most_true(mask)
    return keypoints[:, :most].clone(), mask[:, :most].clone(), descriptors[:, :most].clone()


@compact.register_fake
def _(keypoints: Tensor, mask: Tensor, descriptors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    most = _new_length()
    return tuple(
        tensor.new_empty((tensor.shape[0], most, *tensor.shape[2:]))
        for tensor in (keypoints, mask, descriptors)
    )


@onnx_form("compact")
def _(keypoints: Any, mask: Any, descriptors: Any) -> Any:
    zero, one = opset18.Constant(value_ints=[0]), opset18.Constant(value_ints=[1])
    most = _onnx_most_true(mask)
    return tuple(opset18.Slice(tensor, zero, most, one) for tensor in (keypoints, mask, descriptors))


@operator
def first_slots(values: Tensor, keep: Tensor) -> Tensor:
    """Return the first columns of values [S, K]: as many as are true in the fullest row of keep [S, K]."""
    return values[:, : _most_true(keep)].clone()


@first_slots.register_fake
def _(values: Tensor, keep: Tensor) -> Tensor:
    return values.new_empty((values.shape[0], _new_length()))


@onnx_form("first_slots")
def _(values: Any, keep: Any) -> Any:
    zero, one = opset18.Constant(value_ints=[0]), opset18.Constant(value_ints=[1])
    return opset18.Slice(values, zero, _onnx_most_true(keep), one)


@operator
def where_true(chosen: Tensor) -> Tensor:
    """Return the indices int64 [F] of the true elements of bool [P].

    The tracer would use NonZero, which is the slowest operator on a GPU.
    """
    return chosen.nonzero().squeeze(1)


@where_true.register_fake
def _(chosen: Tensor) -> Tensor:
    return chosen.new_empty((_new_length(),), dtype=torch.int64)


@onnx_form("where_true")
def _(chosen: Any) -> Any:
    zero, one = opset18.Constant(value_int=0), opset18.Constant(value_int=1)
    count = opset18.Squeeze(opset18.Shape(chosen))
    return opset18.Compress(opset18.Range(zero, count, one), chosen, axis=0)


def _new_length() -> torch.SymInt:
    """Return a new free length. It starts at 2 because the tracer treats a length of 1 as special."""
    return torch.library.get_ctx().new_dynamic_size(min=2)


def _most_true(mask: Tensor) -> int:
    """Count the true elements of the fullest row; at least 1."""
    return max(1, int(mask.sum(dim=1).amax())) if len(mask) else 1


def _onnx_most_true(mask: Any) -> Any:
    """Build `_most_true` in ONNX: int64 [1]."""
    zero, one = opset18.Constant(value_ints=[0]), opset18.Constant(value_ints=[1])
    counts = opset18.ReduceSum(opset18.Cast(mask, to=7), one, keepdims=0)
    return opset18.ReduceMax(opset18.Concat(counts, one, axis=0), zero)
