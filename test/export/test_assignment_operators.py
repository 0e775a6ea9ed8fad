"""Best partners: each target's form finds what PyTorch finds, the first of equal ones too."""

import numpy as np
import onnxruntime
import pytest
import torch

from lightglue_ros.export.operators.assignment import best_of_columns, best_of_rows
from lightglue_ros.export.options import TARGETS
from lightglue_ros.export.tracing import Free, Part, TensorSpec, trace


class Best(torch.nn.Module):
    """Both operators."""

    def forward(self, assignment):
        return *best_of_rows(assignment), best_of_columns(assignment)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("slots", [1, 7, 600, 1024])
@pytest.mark.parametrize("pairs", ["fixed", "free"])
def test_the_best_of_rows_and_columns_are_the_first_that_pytorch_finds(target, slots, pairs):
    axes = (Free("P") if pairs == "free" else 3, slots, slots)
    specs = {"assignment": TensorSpec(torch.float32, axes)}
    model = trace(Part("best", Best(), specs, ["score", "partner", "back"]), opset=18, target=target)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(slots)
    for levels in (10_000, 5, 1):  # with five and with one, many are equal
        values = (random.integers(0, levels, (3, slots, slots)) / levels).astype(np.float32)
        score, partner, back = session.run(None, {"assignment": values})
        assert np.array_equal(score, values.max(axis=2))
        assert np.array_equal(partner, values.argmax(axis=2))
        assert np.array_equal(back, values.argmax(axis=1))
