"""Graphs put together from parts that are traced one by one."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from lightglue_ros.export import assembly
from lightglue_ros.export.assembly import Free, Part, TensorSpec, assemble


class Scaled(nn.Module):
    """Adds an offset to what is multiplied; with a parameter that is not looked at."""

    def __init__(self, factor, offset):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))
        self.offset = nn.Parameter(torch.tensor(offset))
        self.unused = nn.Parameter(torch.tensor([7.0]))

    def forward(self, *inputs):
        return inputs[0] * self.factor + self.offset


def trace(module, examples, free, output_names):
    program = torch.onnx.export(
        module,
        tuple(examples.values()),
        input_names=list(examples),
        output_names=list(output_names),
        dynamic_shapes=free,
        dynamo=True,
        verbose=False,
    )
    return program.model_proto


def parts(*modules):
    values = TensorSpec(torch.float32, (Free("N"), 2))
    return [
        Part(f"part{number}", module, {f"x{number}": values}, [f"x{number + 1}"], traced_as="scaled")
        for number, module in enumerate(modules)
    ]


def run(model, values):
    session = onnx.reference.ReferenceEvaluator(model)
    return session.run(None, {"x0": values})[0]


def test_parts_traced_as_one_have_their_own_parameters():
    modules = Scaled([2.0, 3.0], [1.0, -1.0]), Scaled([5.0, 7.0], [0.5, 0.25])
    model = assemble(parts(*modules), ["x0"], ["x2"], trace)
    onnx.checker.check_model(model, full_check=True)
    values = np.arange(8, dtype=np.float32).reshape(4, 2)
    expected = modules[1](modules[0](torch.from_numpy(values))).detach().numpy()
    np.testing.assert_allclose(run(model, values), expected)


def test_a_tensor_that_the_tracer_merged_with_another_one_must_be_equal_to_it_everywhere():
    alike = Scaled([2.0, 3.0], [2.0, 3.0])
    alike_too = Scaled([5.0, 7.0], [5.0, 7.0])
    model = assemble(parts(alike, alike_too), ["x0"], ["x2"], trace)
    values = np.ones((4, 2), np.float32)
    expected = alike_too(alike(torch.from_numpy(values))).detach().numpy()
    np.testing.assert_allclose(run(model, values), expected)

    graph = onnx.GraphProto()
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([2.0, 3.0], np.float32), "factor"))
    with pytest.raises(ValueError, match=r"offset is not equal to any of \['factor'\] in all parts"):
        assembly._put_values(graph, alike, Scaled([5.0, 7.0], [5.0, 8.0]))
