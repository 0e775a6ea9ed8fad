"""Best partners: each target's form finds what NumPy finds, of equal ones the first."""

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


def session_of(target, pairs, slots):
    """Export the operators for a target, with P and K fixed or free."""
    specs = {"assignment": TensorSpec(torch.float32, (pairs, slots, slots))}
    model = trace(Part("best", Best(), specs, ["score", "partner", "back"]), opset=18, target=target)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def assert_best(session, pairs, slots):
    random = np.random.default_rng(slots)
    for levels in (10_000, 5, 1):  # with five and with one, many are equal
        values = (random.integers(0, levels, (pairs, slots, slots)) / levels).astype(np.float32)
        score, partner, back = session.run(None, {"assignment": values})
        assert np.array_equal(score, values.max(axis=2))
        assert np.array_equal(partner, values.argmax(axis=2))
        assert np.array_equal(back, values.argmax(axis=1))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("pairs", "slots"), [(3, 1), (3, 1024), ("free", 7), ("free", 600)])
def test_the_best_of_rows_and_columns_are_the_first_that_numpy_finds(target, pairs, slots):
    session = session_of(target, Free("P") if pairs == "free" else pairs, slots)
    assert_best(session, 3, slots)
    if pairs == "free":
        assert_best(session, 0, slots)


@pytest.mark.parametrize("target", sorted(set(TARGETS) - {"gpu"}))
def test_an_adaptive_export_finds_the_best_of_any_number_of_pairs_and_points(target):
    session = session_of(target, Free("P"), Free("K"))
    for pairs in (0, 1, 3):
        for slots in (1, 7, 16, 600):
            assert_best(session, pairs, slots)
