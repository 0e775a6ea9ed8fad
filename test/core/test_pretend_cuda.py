"""ONNX Runtime's GPU build over libraries with CUDA's names.

What is said where something is missing; where an export for GPUs lies, and which kernels it starts; how often
a frame waits for the GPU.

The libraries compute nothing. See CONTRIBUTING.md for what the two environment variables name.
"""

import functools
import os
import re
import subprocess
import sys
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


FRAMES = """
import ctypes, sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from lightglue_ros.core import Features, MatchPipeline

model, cuda_graph = sys.argv[1:]
runtime = ctypes.CDLL("libcudart.so.13")
images = list(np.random.default_rng(0).integers(0, 256, (2, 256, 320, 3), np.uint8))

def make():
    pipeline = MatchPipeline(model, "cuda", (320, 256), cuda_graph=cuda_graph == "True")
    pipeline.warm_up(cameras=2, pairs=1)
    return pipeline

def match(name, left, right):
    runtime.gpustub_log(b"##### %s", name.encode())
    extracted = pipeline.extract([left, right])
    present = [extracted.of_image(slot) for slot, image in enumerate([left, right]) if image is not None]
    if len(present) == 2:
        pipeline.match_features(Features.concatenate(present), [(0, 1)])
    return [int(features.mask.sum()) for features in present]

with ThreadPoolExecutor(1) as inference:
    pipeline = inference.submit(make).result()
    for name in ("first", "second", "both", "left", "both", "right", "both"):
        shown = [None if name == "right" else images[0], None if name == "left" else images[1]]
        inference.submit(match, name, *shown).result()
    pipeline.max_keypoints, pipeline.match_threshold = 30, 0.5
    for name in ("changed", "both"):
        inference.submit(match, name, *images).result()
"""

THROUGH_TIME = """
import ctypes, sys
import numpy as np
from lightglue_ros.core import Features, MatchPipeline

model, cuda_graph = sys.argv[1:]
runtime = ctypes.CDLL("libcudart.so.13")
image = np.random.default_rng(0).integers(0, 256, (256, 320, 3), np.uint8)
pipeline = MatchPipeline(model, "cuda", (320, 256), cuda_graph=cuda_graph == "True")
pipeline.warm_up(cameras=1, pairs=1, images=2)

def match(before):
    present = pipeline.extract([image]).of_image(0)
    if before is not None:
        pipeline.match_features(Features.concatenate([before, present]), [(0, 1)])
    return present.copy()

kept = None
for number in range(6):
    runtime.gpustub_log(b"##### %d", number)
    kept = match(kept)
"""

PLACEMENT = """
import sys
import onnxruntime

options = onnxruntime.SessionOptions()
options.log_severity_level = options.log_verbosity_level = 0
onnxruntime.InferenceSession(sys.argv[1], options, providers=["CUDAExecutionProvider"], enable_fallback=0)
"""

RUNS = """
import ctypes, sys
from pathlib import Path
import numpy as np
from lightglue_ros.core.contract import empty_inputs
from lightglue_ros.core.session import GraphSession

folder, *graphs = sys.argv[1:]
runtime = ctypes.CDLL("libcudart.so.13")
for graph in graphs:
    session = GraphSession(Path(folder, f"{graph}.onnx"), graph, provider="cuda")
    black = empty_inputs(session.info)
    runs = {"black": black}
    if graph == "matcher":
        runs["keypoints"] = black | {"keypoint_mask": np.ones_like(black["keypoint_mask"])}
        if not session.info.is_static:
            runs["no pairs"] = black | {"pairs": black["pairs"][:0]}
    for name, tensors in runs.items():
        runtime.gpustub_log(b"##### %s", f"{graph}, {name}".encode())
        session.run(tensors)
"""


@pytest.fixture(scope="module")
def gpu_export(tmp_path_factory):
    """Makes a small export of XFeat for GPUs once: static in fp16 or dynamic in fp32."""
    pytest.importorskip("torch", reason="no PyTorch here to export with")

    @functools.cache
    def make(shapes):
        folder = tmp_path_factory.mktemp(shapes)
        words = ["export", "xfeat", "--split", "--target", "gpu", "--max-keypoints", "256", "-o", str(folder)]
        words += ["--image-size", "320x256", "--precision", "fp16"] if shapes == "static" else []
        subprocess.run([sys.executable, "-m", "lightglue_ros", *words], check=True, capture_output=True)
        return folder

    return make


@pytest.mark.parametrize("shapes", ["static", "dynamic"])
@pytest.mark.parametrize("graph", ["extractor", "matcher"])
def test_an_export_for_gpus_lies_on_cuda_and_nothing_comes_down_within_a_run(gpu_export, shapes, graph):
    status, lines = run(["-c", PLACEMENT, gpu_export(shapes) / f"{graph}.onnx"], "", {})
    log = "\n".join(lines)
    assert status == 0
    assert "placed on [CUDAExecutionProvider]" in log
    if shapes == "static":
        assert "placed on [CPUExecutionProvider]" not in log
        assert "Add Memcpy" not in log
    else:
        # Only what computes shapes: ONNX Runtime itself moves that to the CPU.
        shape_nodes = set(re.findall(r"Force fallback to CPU execution for node: (\S+)", log))
        on_cpu = log.partition("placed on [CPUExecutionProvider]")[2].partition("placed on [")[0]
        assert set(re.findall(r"VerifyEachNode\S+ +\S+ \((.+)\)$", on_cpu, re.MULTILINE)) <= shape_nodes
        assert "Add MemcpyToHost" not in log


@pytest.mark.parametrize("shapes", ["static", "dynamic"])
def test_each_attention_is_one_fused_kernel_and_no_kernel_gets_nothing_to_do(gpu_export, shapes, tmp_path):
    log = tmp_path / "calls"
    words = ["-c", RUNS, gpu_export(shapes), "extractor", "matcher"]
    assert run(words, "", {"GPUSTUB_LOG": str(log)}) == (0, [])
    text = log.read_text()
    assert "INVALIDCONFIG" not in text
    runs = dict(part.split("\n", 1) for part in text.split("##### ")[1:])
    assert len(runs) == (4 if shapes == "dynamic" else 3)
    del runs["extractor, black"]
    # Of ONNX Runtime and of cuDNN, which the matcher needs for nothing else.
    fused = re.compile(
        r"^launch .*attention_kernel|^launch .*flash_fwd(?!.*combine)|^cudnn execute", re.MULTILINE
    )
    # XFeat's matcher has 6 layers, each with attention within an image and between two.
    assert {name: len(fused.findall(calls)) for name, calls in runs.items()} == dict.fromkeys(runs, 12)


@pytest.fixture(scope="module", params=[("static", True), ("static", False), ("dynamic", False)], ids=str)
def frames(request, gpu_export, tmp_path_factory):
    """The number of CUDA graphs, the calls of CUDA before the first frame, and those of each frame."""
    shapes, cuda_graph = request.param
    log = tmp_path_factory.mktemp("frames") / "calls"
    assert run(["-c", FRAMES, gpu_export(shapes), cuda_graph], "", {"GPUSTUB_LOG": str(log)}) == (0, [])
    before, *later = log.read_text().split("##### ")
    return 2 * cuda_graph, before.splitlines(), [frame.splitlines() for frame in later]


def blocking(calls):
    return [call for call in calls if call.startswith(("memcpy ", "sync"))]


def planned(calls):
    return [call for call in calls if "buildplan" in call or "heuristicquery" in call or "capture" in call]


def test_a_stereo_frame_waits_three_times_at_most_also_with_a_camera_that_comes_and_goes(frames):
    steady = [calls for name, *calls in frames[2] if name in ("both", "left", "right")]
    assert len(steady) == 6
    for calls in steady:
        assert 0 < len(blocking(calls)) <= 3


@pytest.mark.parametrize("shapes", ["static", "dynamic"])
def test_a_frame_that_is_matched_with_the_one_before_waits_three_times_at_most(gpu_export, shapes, tmp_path):
    log = tmp_path / "calls"
    words = ["-c", THROUGH_TIME, gpu_export(shapes), shapes == "static"]
    assert run(words, "", {"GPUSTUB_LOG": str(log)}) == (0, [])
    frames = [frame.splitlines() for frame in log.read_text().split("##### ")[1:]]
    # The first two take the memory for kept features.
    for calls in frames[3:]:
        assert 0 < len(blocking(calls)) <= 3
        assert planned(calls) == []
        # To keep the features of an image and to match them later: four tensors each.
        assert sum("memcpyasync" in call for call in calls) >= 8


def test_nothing_is_planned_or_captured_again_after_the_warm_up(frames):
    graphs, before, later = frames
    assert planned(before)
    assert [planned(calls) for calls in later] == [[]] * len(later)
    assert sum("begincapture" in call for call in before) == graphs
