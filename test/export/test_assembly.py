"""Assembly of graphs from parts that are traced one by one."""

from functools import partial

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from lightglue_ros.export.assembly import _put_values, assemble
from lightglue_ros.export.tracing import Free, Part, TensorSpec, trace

trace_part = partial(trace, opset=18, target="portable")


class Scaled(nn.Module):
    """Multiplies and adds; has one unused parameter."""

    def __init__(self, factor, offset):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))
        self.offset = nn.Parameter(torch.tensor(offset))
        self.unused = nn.Parameter(torch.tensor([7.0]))

    def forward(self, *inputs):
        return inputs[0] * self.factor + self.offset


# The tracer merges the equal tensors of the second pair.
@pytest.mark.parametrize("offsets", [([1.0, -1.0], [0.5, 0.25]), ([2.0, 3.0], [5.0, 7.0])])
def test_parts_traced_as_one_have_their_own_parameters(offsets):
    factors = [2.0, 3.0], [5.0, 7.0]
    modules = [Scaled(*parameters) for parameters in zip(factors, offsets, strict=True)]
    values = TensorSpec(torch.float32, (Free("N"), 2))
    parts = [
        Part(f"part{number}", module, {f"x{number}": values}, [f"x{number + 1}"], traced_as="scaled")
        for number, module in enumerate(modules)
    ]
    model = assemble(parts, ["x0"], ["x2"], trace_part)
    onnx.checker.check_model(model, full_check=True)
    inputs = np.arange(8, dtype=np.float32).reshape(4, 2)
    found = onnx.reference.ReferenceEvaluator(model).run(None, {"x0": inputs})[0]
    expected = modules[1](modules[0](torch.from_numpy(inputs))).detach().numpy()
    np.testing.assert_allclose(found, expected)


def test_tensors_that_the_tracer_merged_must_be_equal_in_all_parts():
    graph = onnx.GraphProto()
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([2.0, 3.0], np.float32), "factor"))
    with pytest.raises(ValueError, match=r"offset is not equal to any of \['factor'\] in all parts"):
        _put_values(graph, Scaled([2.0, 3.0], [2.0, 3.0]), Scaled([5.0, 7.0], [5.0, 8.0]))
