"""Best partners in an assignment of keypoints to keypoints; of equal ones the first."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import torch
from onnxscript import opset18
from torch import Tensor

from lightglue_ros.export.operators.registration import onnx_form, operator


def _score_and_place(assignment: Tensor) -> tuple[Tensor, Tensor]:
    return assignment.new_empty(assignment.shape[:2]), _place(assignment)


def _place(assignment: Tensor) -> Tensor:
    return assignment.new_empty(assignment.shape[:2], dtype=torch.int64)


@operator(_score_and_place)
def best_of_rows(assignment: Tensor) -> tuple[Tensor, Tensor]:
    """Find the best of each row of an assignment [P, K, K], K >= 1: score and place int64, both [P, K]."""
    best, place = assignment.max(dim=2)
    return best, place


@onnx_form("best_of_rows")
def _(assignment: Any) -> Any:
    best = opset18.ReduceMax(assignment, opset18.Constant(value_ints=[2]), keepdims=0)
    return best, opset18.ArgMax(assignment, axis=2, keepdims=0)


@onnx_form("best_of_rows", target="cpu")
def _(assignment: Any) -> Any:
    return _best_by_gathering(assignment, axis=2)


@onnx_form("best_of_rows", target="gpu")
def _(assignment: Any) -> Any:
    return _best_by_pooled_places(assignment, axis=2)


@operator(_place)
def best_of_columns(assignment: Tensor) -> Tensor:
    """Find the place of the best of each column of an assignment [P, K, K], K >= 1: int64 [P, K]."""
    return assignment.argmax(dim=1)


@onnx_form("best_of_columns")
def _(assignment: Any) -> Any:
    return opset18.ArgMax(assignment, axis=1, keepdims=0)


@onnx_form("best_of_columns", target="cpu")
def _(assignment: Any) -> Any:
    return _best_by_gathering(assignment, axis=1)[1]


@onnx_form("best_of_columns", target="gpu")
def _(assignment: Any) -> Any:
    return _best_by_pooled_places(assignment, axis=1)[1]


def _best_by_gathering(assignment: Any, axis: int) -> tuple[Any, Any]:
    """Find the best piece along an axis, gather it, and find the best in it: score and place [P, K].

    ONNX Runtime's ArgMax looks at one number at a time, and for columns it jumps from row to row: 6 ms for
    K = 1024 on one core of a Xeon with AMX. Its MaxPool looks at many; this takes 0.4 ms, and rows 0.7 in
    place of 1.2.
    """
    length = 16
    on_axis, channel = opset18.Constant(value_ints=[axis]), opset18.Constant(value_ints=[1])
    shape = [length, 1] if axis == 1 else [1, length]
    maps = opset18.Unsqueeze(assignment, channel)
    best, _ = opset18.MaxPool(maps, kernel_shape=shape, strides=shape, ceil_mode=1)
    best = opset18.Squeeze(best, channel)
    start = opset18.Mul(opset18.ArgMax(best, axis=axis), opset18.Constant(value_int=length))
    steps = onnx.numpy_helper.from_array(np.arange(length).reshape(1, *shape), "steps")
    last = opset18.Sub(opset18.Shape(assignment, start=2), channel)
    places = opset18.Min(opset18.Add(start, opset18.Constant(value=steps)), last)
    piece = opset18.GatherElements(assignment, places, axis=axis)
    place = opset18.Add(start, opset18.ArgMax(piece, axis=axis))
    return opset18.ReduceMax(best, on_axis, keepdims=0), opset18.Squeeze(place, on_axis)


def _best_by_pooled_places(assignment: Any, axis: int) -> tuple[Any, Any]:
    """Find the best along an axis, first in each piece and then among the pieces: score and place [P, K].

    K is fixed. ONNX Runtime's MaxPool returns places as well. For K = 1024 its ReduceMax and ArgMax, which
    are cuDNN's, take 60 and 70 µs on an H100, and its TopK 100.
    """
    slots = assignment.shape[2]
    piece = math.isqrt(slots - 1) + 1
    pieces = -(-slots // piece)
    channel = opset18.Constant(value_ints=[1])
    best, places = _pooled(
        opset18.Unsqueeze(assignment, channel), piece, axis, padding=piece * pieces - slots
    )
    best, chosen = _pooled(best, pieces, axis, padding=0)
    # Places count the elements before, all of them or those of the map; both are whole lines.
    place = opset18.GatherElements(
        _place_on(places, axis, slots, slots), _place_on(chosen, axis, slots, pieces), axis=axis + 1
    )
    lines = opset18.Constant(value_ints=[1, axis + 1])
    return opset18.Squeeze(best, lines), opset18.Squeeze(place, lines)


def _pooled(maps: Any, length: int, axis: int, padding: int) -> Any:
    """Find the best of each piece along an axis of maps [P, 1, H, W], and its place."""
    on_rows = axis == 1
    pads = [0, 0, padding, 0] if on_rows else [0, 0, 0, padding]
    shape = [length, 1] if on_rows else [1, length]
    return opset18.MaxPool(maps, kernel_shape=shape, strides=shape, pads=pads)


def _place_on(places: Any, axis: int, width: int, length: int) -> Any:
    """Take the place along an axis of so many elements from places in maps [P, 1, H, W]."""
    if axis == 1:
        places = opset18.Div(places, opset18.Constant(value_int=width))
    return opset18.Mod(places, opset18.Constant(value_int=length))
