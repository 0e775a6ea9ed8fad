"""RTAB-Map's scripts, called as its C++ calls them (PyMatcher.cpp and PyDetector.cpp).

It appends the script's folder to sys.path, imports it by its name, makes arrays over memory that it frees
after the call, and reads the results as flat memory of one type.
"""

import ctypes
import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lightglue_ros.core import MatchPipeline
from lightglue_ros.errors import ConfigError

FOLDER = Path(__file__).parents[2] / "rtabmap"
THRESHOLD = float(np.float32(0.2))  # PyMatcher/Threshold


def load(path):
    """As C++ does it with the value of PyMatcher/Path or PyDetector/Path."""
    sys.path.append(str(path.parent))
    return importlib.import_module(path.name.split(".")[0])


def call(function, *arguments):
    """Call with positional arguments; arrays are views of memory that is gone afterwards."""
    views, memory = [], []
    for value in arguments:
        if isinstance(value, np.ndarray):
            memory.append(bytearray(value.tobytes()))
            value = np.frombuffer(memory[-1], value.dtype).reshape(value.shape)
        views.append(value)
    result = function(*views)
    for freed in memory:
        freed[:] = b"\xff" * len(freed)
    return result


def flat(array, kind, columns):
    """Read an array as C++ does: its type, its rows and columns, and the memory behind it."""
    assert isinstance(array, np.ndarray)
    rows, width = array.shape
    assert (array.dtype, width) == (kind, columns)
    memory = ctypes.string_at(array.ctypes.data, rows * columns * array.itemsize)
    return np.frombuffer(memory, kind).reshape(rows, columns)


@pytest.fixture
def detector(model_folder):
    detector = load(FOLDER / "lightglue_detector.py")
    call(detector.init, 0)
    return detector


@pytest.fixture
def matcher(model_folder):
    matcher = load(FOLDER / "lightglue_matcher.py")
    call(matcher.init, 64, THRESHOLD, 20, 0, "indoor")
    return matcher


@pytest.fixture
def grey(motorcycle):
    return [np.ascontiguousarray(image[..., 1]) for image in motorcycle]


@pytest.fixture
def expected(model_folder, grey):
    """Features of the two grey images, and their matches."""
    pipeline = MatchPipeline("xfeat", "cpu", match_threshold=THRESHOLD)
    features = pipeline.extract(grey)
    return features, pipeline.match_features(features, [(0, 1)])[0]


def detect(detector, image):
    keypoints, descriptors = call(detector.detect, image)
    return flat(keypoints, np.float32, 3), flat(descriptors, np.float32, 64)


def match(matcher, first, second, size=(741, 500)):
    """Match (keypoints, descriptors) as RTAB-Map hands them over; returns rows of (from, to)."""
    (k0, d0), (k1, d1) = first, second
    points = [np.ascontiguousarray(it[:, :2]) for it in (k0, k1)]
    scores = [np.ascontiguousarray(it[:, 2]) for it in (k0, k1)]
    return flat(call(matcher.match, *points, *scores, d0, d1, *size), np.int32, 2)


def test_detected_and_matched_images_have_the_keypoints_and_matches_of_the_pipeline(
    detector, matcher, grey, expected
):
    features, pair = expected
    found = [detect(detector, image) for image in grey]
    for slot, (keypoints, descriptors) in enumerate(found):
        mask = features.mask[slot]
        np.testing.assert_array_equal(keypoints[:, :2], features.keypoints[slot][mask])
        np.testing.assert_array_equal(keypoints[:, 2], features.scores[slot][mask])
        np.testing.assert_array_equal(descriptors, features.descriptors[slot][mask])
    rows = match(matcher, *found)
    assert len(rows) > 200
    np.testing.assert_array_equal(rows, np.stack([pair.indices0, pair.indices1], axis=1))


def test_no_keypoints_give_no_matches(detector, matcher, grey):
    nothing = detect(detector, np.zeros((480, 640), np.uint8))
    assert len(nothing[0]) == len(nothing[1]) == 0
    something = detect(detector, grey[0])
    for pair in ((nothing, something), (something, nothing), (nothing, nothing)):
        assert len(match(matcher, *pair)) == 0


def test_of_more_keypoints_than_the_model_has_slots_the_best_are_matched(detector, matcher, grey):
    """4,096 keypoints in any order, as a local map of RTAB-Map's odometry has them, for 1,024 slots."""
    found = [detect(detector, image) for image in grey]
    best = match(matcher, *found)
    random = np.random.default_rng(0)
    many, places = [], []
    for keypoints, descriptors in found:
        others = 4096 - len(keypoints)
        worse = random.uniform((0, 0, 0), (740, 499, 1e-6), (others, 3)).astype(np.float32)
        noise = random.normal(size=(others, 64)).astype(np.float32)
        noise /= np.linalg.norm(noise, axis=1, keepdims=True)
        order = random.permutation(4096)
        many.append((np.concatenate([keypoints, worse])[order], np.concatenate([descriptors, noise])[order]))
        places.append(np.argsort(order))
    rows = match(matcher, *many)
    expected = {(places[0][i], places[1][j]) for i, j in best}
    assert set(map(tuple, rows.tolist())) == expected
    assert len(rows) == len(best)


def test_descriptors_of_another_width_are_an_error_that_names_both(matcher, model_folder):
    """The model by its folder, as PyMatcher/Model may give it."""
    with pytest.raises(ConfigError, match=r"have 256 numbers; allowed: 64, those of model xfeat"):
        call(matcher.init, 256, THRESHOLD, 20, 0, str(model_folder))


def test_the_scripts_run_in_an_embedded_interpreter_without_arguments_and_without_pytorch(model_folder):
    script = f"""
import sys
del sys.argv
sys.path.append({str(FOLDER)!r})
import numpy
detector, matcher = __import__("lightglue_detector"), __import__("lightglue_matcher")
detector.init(1)
matcher.init(64, 0.2, 20, 1, "indoor")
keypoints, descriptors = detector.detect(numpy.zeros((480, 640), numpy.uint8))
points, scores = keypoints[:, :2].copy(), keypoints[:, 2].copy()
print(matcher.match(points, points, scores, scores, descriptors, descriptors, 640, 480).shape)
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout == "(0, 2)\n", done.stderr
