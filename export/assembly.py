"""Assembly of one ONNX graph from parts that are traced one by one.

The tracer would give every shape after a data-dependent step an expression of its own, which grows from step
to step. In parts that are traced one by one, these lengths are free inputs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import onnx
import torch
from torch import nn

from lightglue_ros.export.tracing import Part


def assemble(
    parts: Sequence[Part],
    inputs: Sequence[str],
    outputs: Sequence[str],
    trace: Callable[[Part], onnx.ModelProto],
) -> onnx.ModelProto:
    """Join parts, in their order, to one graph.

    Each part takes inputs of the graph or outputs of earlier parts. Each input or output of the graph is an
    input or output of some part.
    """
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    described: dict[str, onnx.ValueInfoProto] = {}
    traced: dict[str, tuple[nn.Module, onnx.ModelProto]] = {}
    for part in parts:
        key = part.traced_as or part.name
        if key not in traced:
            traced[key] = part.module, trace(part)
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
    # All parts are traced with the same opsets and format version; take the last part's.
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    opsets |= {node.domain: 1 for node in nodes if node.domain and node.domain not in opsets}
    return onnx.helper.make_model(
        graph,
        opset_imports=[onnx.helper.make_opsetid(*entry) for entry in opsets.items()],
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
    )


def _put_values(graph: onnx.GraphProto, traced: nn.Module, module: nn.Module) -> None:
    """Replace the parameters and buffers that a graph was traced with by another module's.

    The tracer merges equal tensors. Tensors that it merged must be equal in the other module as well.

    Raises:
        ValueError: merged tensors differ in the other module.
    """
    values, before = module.state_dict(), traced.state_dict()
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for name in values.keys() - held.keys():  # unused tensors, and tensors merged with an equal one
        own = before[name].numpy()
        alike = [it for it, array in held.items() if own.dtype == array.dtype and np.array_equal(own, array)]
        if alike and not any(other in values and torch.equal(values[other], values[name]) for other in alike):
            raise ValueError(f"{name} is not equal to any of {alike} in all parts that are traced as one")
    for tensor in graph.initializer:
        if tensor.name in values:
            array = values[tensor.name].detach().contiguous().numpy()
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


def _renamed(graph: onnx.GraphProto, part: Part) -> onnx.GraphProto:
    """Give inputs and outputs the part's names, and all other values the part's prefix."""
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
