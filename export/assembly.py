"""Graphs put together from parts that are traced one by one.

A tracer follows shapes, and what goes on after a step that keeps as much as the data say has a shape of its
own in each step. Traced one by one, every part begins with shapes that are simply free.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim

LARGEST_DIM = 2**16  # a bound that the tracer wants
EXAMPLE_LENGTH = 3  # of a free axis, to trace with; its multiples are as many times longer


@dataclass(frozen=True)
class Free:
    """An axis of free length: equal in all tensors of a part that name it, and a multiple of `times`."""

    name: str
    times: int = 1


@dataclass(frozen=True)
class TensorSpec:
    """Type and axes of a tensor, each axis free or of a fixed length."""

    dtype: torch.dtype
    axes: tuple[Free | int, ...]

    def example(self) -> Tensor:
        """Zeros to trace with."""
        lengths = [axis if isinstance(axis, int) else EXAMPLE_LENGTH * axis.times for axis in self.axes]
        return torch.zeros(lengths, dtype=self.dtype)


@dataclass(frozen=True)
class Part:
    """One part of a graph.

    Attributes:
        name: what the names of its nodes begin with.
        module: its forward step takes all inputs as `*inputs` and gives a tensor for each output.
        inputs: the graph's inputs, outputs of parts before, or constants.
        outputs: names of what it gives.
        constants: values of those inputs that are always the same.
        traced_as: parts of one such name differ in nothing but their constants and the values of their
            parameters and buffers, and are traced once.
    """

    name: str
    module: nn.Module
    inputs: Mapping[str, TensorSpec]
    outputs: Sequence[str]
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    traced_as: str | None = None


# Exports a module, given example inputs by their names, their free axes and the outputs' names.
Trace = Callable[[nn.Module, Mapping[str, Tensor], Sequence[object], Sequence[str]], onnx.ModelProto]


def assemble(
    parts: Sequence[Part], inputs: Sequence[str], outputs: Sequence[str], trace: Trace
) -> onnx.ModelProto:
    """One graph of all parts, in their order.

    Args:
        parts: with inputs that the graph has or that a part before gives.
        inputs: of the graph, each an input of some part.
        outputs: of the graph, each given by some part.
        trace: exports a module.
    """
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    described: dict[str, onnx.ValueInfoProto] = {}
    traced: dict[str, tuple[nn.Module, onnx.ModelProto]] = {}
    for part in parts:
        key = part.traced_as or part.name
        if key not in traced:
            traced[key] = part.module, _traced(part, trace)
        module, model = traced[key][0], copy.deepcopy(traced[key][1])
        if module is not part.module:
            _put_values(model.graph, module, part.module)
        renamed = _renamed(model.graph, part)
        nodes += renamed.node
        weights += renamed.initializer
        weights += [onnx.numpy_helper.from_array(it.numpy(), name) for name, it in part.constants.items()]
        for value in (*renamed.input, *renamed.output):
            described.setdefault(value.name, value)
    graph = onnx.helper.make_graph(
        nodes, "graph", [described[name] for name in inputs], [described[name] for name in outputs], weights
    )
    # The parts are traced alike: the last one's opsets and version of the format are those of all.
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    opsets |= {node.domain: 1 for node in nodes if node.domain and node.domain not in opsets}
    return onnx.helper.make_model(
        graph,
        opset_imports=[onnx.helper.make_opsetid(*entry) for entry in opsets.items()],
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
    )


def _traced(part: Part, trace: Trace) -> onnx.ModelProto:
    dims: dict[str, Dim] = {}
    free = []
    for spec in part.inputs.values():
        axes = {number: axis for number, axis in enumerate(spec.axes) if isinstance(axis, Free)}
        for axis in axes.values():
            # With a prefix, because N alone is a function to the tracer.
            dims.setdefault(axis.name, Dim(f"free_{axis.name}", min=2, max=LARGEST_DIM))
        free.append({number: _times(axis.times, dims[axis.name]) for number, axis in axes.items()})
    examples = {name: spec.example() for name, spec in part.inputs.items()}
    return trace(part.module, examples, [tuple(free)], part.outputs)


def _put_values(graph: onnx.GraphProto, traced: nn.Module, module: nn.Module) -> None:
    """A module's parameters and buffers in place of those that the graph was traced with.

    The tracer makes one tensor of equal ones. Those have to be equal in the other module as well.

    Raises:
        ValueError: they are not.
    """
    values, before = module.state_dict(), traced.state_dict()
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for name in values.keys() - held.keys():  # not looked at, or one with an equal one
        alike = [other for other, array in held.items() if _are_equal(before[name].numpy(), array)]
        if alike and not any(other in values and torch.equal(values[other], values[name]) for other in alike):
            raise ValueError(f"{name} is not equal to any of {alike} in all parts that are traced as one")
    for tensor in graph.initializer:
        if tensor.name in values:
            array = values[tensor.name].detach().contiguous().numpy()
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


def _are_equal(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype and np.array_equal(one, other)


def _times(times: int, dim: Dim) -> Dim:
    return dim if times == 1 else times * dim


def _renamed(graph: onnx.GraphProto, part: Part) -> onnx.GraphProto:
    """The graph with the part's names for what goes in and comes out, and names of its own for the rest."""
    names = {"": ""}  # an optional input that is left out
    names |= {value.name: name for value, name in zip(graph.input, part.inputs, strict=True)}
    passed_on = []
    for value, name in zip(graph.output, part.outputs, strict=True):
        if value.name in names:
            passed_on.append(onnx.helper.make_node("Identity", [names[value.name]], [name]))
        else:
            names[value.name] = name

    def renamed(name: str) -> str:
        return names.setdefault(name, f"{part.name}/{name}")

    for value in (*graph.input, *graph.output):
        value.name = renamed(value.name)
    for tensor in graph.initializer:
        tensor.name = renamed(tensor.name)
    for node in graph.node:
        node.name = f"{part.name}/{node.name}"
        for kind in (node.input, node.output):
            kind[:] = [renamed(name) for name in kind]
    graph.node.extend(passed_on)
    return graph
