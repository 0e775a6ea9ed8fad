"""Tracing of PyTorch modules to ONNX, whole or in parts with free lengths."""

from __future__ import annotations

import contextlib
import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx
import onnx.inliner
import torch
from torch import Tensor, nn
from torch.export import Dim

from lightglue_ros.export.operators.registration import onnx_forms

LARGEST_DIM = 2**16  # upper bound of every free length, which the tracer requires
EXAMPLE_LENGTH = 3  # length of free axes while tracing


@dataclass(frozen=True)
class Free:
    """An axis of free length, equal in all tensors of a part that name it, and a multiple of `times`."""

    name: str
    times: int = 1


@dataclass(frozen=True)
class TensorSpec:
    """Type and axes of a tensor. Each axis is free or has a fixed length."""

    dtype: torch.dtype
    axes: tuple[Free | int, ...]

    def example(self) -> Tensor:
        """Create zeros to trace with."""
        lengths = [axis if isinstance(axis, int) else EXAMPLE_LENGTH * axis.times for axis in self.axes]
        return torch.zeros(lengths, dtype=self.dtype)


@dataclass(frozen=True)
class Part:
    """A graph, or one part of a graph.

    Parts with the same `traced_as` differ only in constants and in the values of parameters and buffers; they
    are traced once.
    """

    name: str  # prefix of the names of its nodes
    module: nn.Module  # takes all inputs by position and returns one tensor per output
    inputs: Mapping[str, TensorSpec]  # inputs of the graph, outputs of earlier parts, or constants
    outputs: Sequence[str]
    constants: Mapping[str, Tensor] = field(default_factory=dict)  # values of inputs that never change
    traced_as: str | None = None


def trace(part: Part, *, opset: int, target: str) -> onnx.ModelProto:
    """Export a part to ONNX with the operators' forms for a target. Free axes stay free."""
    dims: dict[str, Dim] = {}
    axes = []
    for spec in part.inputs.values():
        free = {number: axis for number, axis in enumerate(spec.axes) if isinstance(axis, Free)}
        for axis in free.values():
            # From 2 on, because PyTorch before 2.7 refuses 0 and 1; the files take 0 and 1 as well.
            # The prefix is needed because the tracer knows N as a function.
            dims.setdefault(axis.name, Dim(f"free_{axis.name}", min=2, max=LARGEST_DIM))
        times = {number: (axis.times, dims[axis.name]) for number, axis in free.items()}
        axes.append({number: dim if factor == 1 else factor * dim for number, (factor, dim) in times.items()})
    parameters = inspect.signature(part.module.forward).parameters.values()
    is_variadic = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)
    shapes = ((tuple(axes),) if is_variadic else tuple(axes)) if dims else None
    with _silence():
        program = torch.onnx.export(
            part.module.eval(),
            tuple(spec.example() for spec in part.inputs.values()),
            input_names=list(part.inputs),
            output_names=list(part.outputs),
            dynamic_shapes=shapes,
            opset_version=opset,
            custom_translation_table=onnx_forms(target),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        # PyTorch 2.6 wraps some operators in functions of its own domain.
        return onnx.inliner.inline_local_functions(program.model_proto)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Hide the tracer's warnings about optional packages and deprecations."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
