"""Value classes and errors of all rooms: they are compared, copied and sent to other processes."""

import ast
import copy
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from lightglue_ros import errors
from lightglue_ros.core import PairMatches

ROOT = Path(__file__).parents[1]
FILES = [file for room in ("lightglue_ros", "export") for file in sorted((ROOT / room).rglob("*.py"))]
ERRORS = [value for value in vars(errors).values() if isinstance(value, type)]


def dataclasses_of(file):
    """The dataclasses of a file, each with the text of its decorator."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ClassDef):
            for decorator in map(ast.unparse, node.decorator_list):
                if decorator.startswith("dataclass"):
                    yield node, decorator


def holds_arrays(node):
    annotations = [ast.unparse(field.annotation) for field in node.body if isinstance(field, ast.AnnAssign)]
    # A function that returns an array is no array.
    return any("ndarray" in re.sub(r"Callable\[\[.*?\], [^]]*\]", "", text) for text in annotations)


def test_classes_that_hold_arrays_are_compared_by_identity_because_equal_arrays_have_no_truth_value():
    decorators = {
        node.name: decorator
        for file in FILES
        for node, decorator in dataclasses_of(file)
        if holds_arrays(node)
    }
    assert {"Features", "PairMatches", "CanvasBatch", "Verification", "Intrinsics"} <= decorators.keys()
    assert [name for name, decorator in decorators.items() if "eq=False" not in decorator] == []


def test_matches_are_compared_without_an_error():
    points, indices = np.zeros((2, 2), np.float32), np.arange(2, dtype=np.int32)
    one, other = (PairMatches(points, points, np.ones(2, np.float32), indices, indices, 6) for _ in range(2))
    assert one == one
    assert one != other
    assert other not in [one]


@pytest.mark.parametrize("kind", [kind for kind in ERRORS if issubclass(kind, Exception)])
@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_errors_reach_other_processes_with_their_text_and_attributes(kind, way):
    words = ("short_data", "18 bytes") if kind is errors.RejectedImageError else ("18 bytes",)
    error = kind(*words, allowed="20 bytes", fix="send them")
    again = way(error)
    assert type(again) is kind
    assert str(again) == str(error) == "18 bytes; allowed: 20 bytes; fix: send them"
    assert vars(again) == vars(error)
