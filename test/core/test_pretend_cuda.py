"""What is said where something of CUDA is missing, with ONNX Runtime's GPU build over libraries of that name.

The libraries compute nothing. See CONTRIBUTING.md for what the two environment variables name.
"""

import os
import subprocess
from pathlib import Path

import pytest

import lightglue_ros

LIBRARIES, PYTHON = os.environ.get("PRETEND_CUDA"), os.environ.get("PRETEND_CUDA_PYTHON")
pytestmark = pytest.mark.skipif(
    not (LIBRARIES and PYTHON), reason="PRETEND_CUDA and PRETEND_CUDA_PYTHON are not set"
)
NO_DEVICE = {"GPUSTUB_DEVICES": "0"}
FAULTS = [
    (None, {}, "there is no NVIDIA driver (libcuda.so.1"),
    ("-nodnn", {}, "cuDNN is missing; fix: pip install 'onnxruntime-gpu[cuda,cudnn]=="),
    ("", NO_DEVICE, "there is no NVIDIA GPU; fix: "),
]
FAULT_NAMES = ["no driver", "no cuDNN", "no device"]

PROGRAM = """
import sys
from lightglue_ros.core import LightGlueRosError, MatchPipeline

model, provider, cuda_graph = sys.argv[1:]
try:
    pipeline = MatchPipeline(model, provider, cuda_graph=cuda_graph == "True")
    pipeline.warm_up()
except LightGlueRosError as error:
    sys.exit(str(error))
print(pipeline.provider, pipeline.fallback_warning, sep=": ")
"""


def run(words, libraries, environment):
    """Run a program of Python over the libraries; returns its status, and its lines of both outputs."""
    paths = {
        "LD_LIBRARY_PATH": "" if libraries is None else LIBRARIES + libraries,
        "PYTHONPATH": str(Path(lightglue_ros.__file__).parents[1]),
        # A number that a kernel would have computed is 0, and the graphs rely on at least 1.
        "GPUSTUB_ONE": "1",
    }
    done = subprocess.run(
        [PYTHON, *map(str, words)],
        env={**os.environ, **paths, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, (done.stdout + done.stderr).splitlines()


def load(model, provider, libraries="", environment=None, cuda_graph=False):
    """Load a model and run it once."""
    return run(["-c", PROGRAM, model, provider, cuda_graph], libraries, environment or {})


def without(model_folder, folder, entries):
    """Copy a model, with other entries of its metadata."""
    onnx = pytest.importorskip("onnx", reason="no onnx here")
    for graph in ("extractor", "matcher"):
        model = onnx.load(model_folder / f"{graph}.onnx")
        for entry in model.metadata_props:
            entry.value = entries.get(entry.key.removeprefix("lightglue_ros."), entry.value)
        onnx.save(model, folder / f"{graph}.onnx")
    return folder


@pytest.mark.parametrize("provider", ["auto", "cuda"])
def test_where_nothing_is_missing_cuda_runs_the_model_without_a_word(model_folder, provider):
    assert load(model_folder, provider) == (0, ["cuda: "])


@pytest.mark.parametrize(("libraries", "environment", "cause"), FAULTS, ids=FAULT_NAMES)
def test_what_is_missing_is_said_in_one_line_and_auto_goes_on_with_the_cpu(
    model_folder, libraries, environment, cause
):
    status, lines = load(model_folder, "auto", libraries, environment)
    (line,) = lines
    assert status == 0
    assert line.startswith(f"cpu: the model runs on cpu: {cause}")
    status, lines = load(model_folder, "cuda", libraries, environment)
    (line,) = lines
    assert status == 1
    assert line.startswith(f"provider 'cuda' does not work here: {cause.partition(';')[0]}")


def test_tensorrt_that_is_missing_is_named_with_the_version_that_fits(model_folder, tmp_path):
    model = without(model_folder, tmp_path, {"tensorrt": "yes"})
    status, lines = load(model, "tensorrt")
    (line,) = lines
    assert status == 1
    assert "a library is missing (libnvinfer.so.10" in line
    assert "pip install 'tensorrt-cu13<11'" in line


def test_a_cuda_graph_of_free_shapes_and_an_adaptive_export_are_refused(model_folder, tmp_path):
    for provider in ("auto", "cuda"):
        status, (line,) = load(model_folder, provider, cuda_graph=True)
        assert status == 1
        assert "cuda_graph is on, and " in line
        assert "has free shapes" in line
    model = without(model_folder, tmp_path, {"adaptive": "yes"})
    status, (line,) = load(model, "auto")
    assert status == 0
    assert "is adaptive, which runs on CPUs only" in line


def test_the_match_command_says_in_a_line_why_it_runs_on_the_cpu(model_folder, motorcycle, tmp_path):
    import cv2

    paths = [tmp_path / "left.png", tmp_path / "right.png"]
    for path, image in zip(paths, motorcycle, strict=True):
        cv2.imwrite(str(path), image)
    words = ["-m", "lightglue_ros", "match", *paths, "--model", model_folder]
    status, lines = run(words, "-nodnn", {})
    assert status == 0
    assert [line for line in lines if "the model runs on cpu: cuDNN is missing; fix: " in line] == lines[1:2]
