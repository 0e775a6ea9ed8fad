"""Which provider runs a model, and what is said where a GPU cannot; no test here needs a GPU."""

from dataclasses import replace
from pathlib import Path

import onnx_files
import onnxruntime
import pytest

from lightglue_ros.core import ConfigError, MatchPipeline, ModelError, ProviderError, providers
from lightglue_ros.core.contract import empty_inputs
from lightglue_ros.core.session import GraphSession

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"


@pytest.fixture
def opened(monkeypatch):
    """Providers and further arguments of each session that is opened."""
    calls, real = [], onnxruntime.InferenceSession

    def open_session(path, options, providers, **arguments):
        calls.append((providers, arguments))
        return real(path, options, providers, **arguments)

    monkeypatch.setattr(onnxruntime, "InferenceSession", open_session)
    return calls


@pytest.fixture
def gpu_build(monkeypatch):
    """Makes a build of ONNX Runtime whose CUDA loads, and whose session then fails with a text."""

    def make(text):
        real = onnxruntime.InferenceSession

        def open_session(path, options, providers, **arguments):
            if providers != [CPU]:
                raise RuntimeError(text)
            return real(path, options, providers, **arguments)

        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
        monkeypatch.setattr(providers, "_driver_problem", lambda: None)
        monkeypatch.setattr(providers, "_library_problem", lambda provider: None)
        monkeypatch.setattr(onnxruntime, "InferenceSession", open_session)

    return make


@pytest.mark.parametrize(
    ("changes", "options", "error", "says"),
    [
        (
            {"min_onnxruntime": "99.0"},
            {},
            ModelError,
            r"for ONNX Runtime 99\.0 or later, and .*--opset 18",
        ),
        ({"graph": "matcher"}, {}, ModelError, "holds graph matcher; allowed: extractor"),
        (
            {},
            {"cuda_graph": True},
            ConfigError,
            r"cuda_graph is on.* free shapes.* --target gpu --image-size 640x480 -o .*, then set model to",
        ),
    ],
    ids=["newer", "other graph", "free shapes"],
)
@pytest.mark.parametrize("provider", ["cpu", "auto"])
def test_what_is_wrong_is_said_before_onnxruntime_sees_the_file(
    tmp_path, opened, provider, changes, options, error, says
):
    path = tmp_path / "extractor.onnx"
    path.write_bytes(onnx_files.model(**changes))
    with pytest.raises(error, match=says):
        GraphSession(path, "extractor", provider=provider, **options)
    assert opened == []


def test_a_graph_that_onnxruntime_cannot_load_is_a_broken_file(tmp_path):
    path = tmp_path / "extractor.onnx"
    path.write_bytes(onnx_files.model())
    with pytest.raises(ModelError, match=r"ONNX Runtime .* cannot load .*fix: copy the file again"):
        GraphSession(path, "extractor", provider="cpu")


def test_a_session_is_opened_once_and_never_changes_its_provider_by_itself(model_folder, opened):
    session = GraphSession(model_folder / "matcher.onnx", "matcher", provider="cpu")
    session.run(empty_inputs(session.info))
    assert opened == [([CPU], {"enable_fallback": 0})]
    assert (session.provider, session.fallback_reason) == ("cpu", "")


@pytest.mark.parametrize("graph", ["extractor", "matcher"])
def test_a_graph_runs_on_black_images_without_keypoints(model_folder, graph):
    session = GraphSession(model_folder / f"{graph}.onnx", graph, provider="cpu")
    found = session.run(empty_inputs(session.info))
    assert not any((found[name] > 0).any() for name in ("keypoint_mask", "match_scores") if name in found)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (
            "CUDA failure 35: CUDA driver version is insufficient for CUDA",
            "the NVIDIA driver is older",
        ),
        ("CUDA failure 100: no CUDA-capable device is detected ; GPU=0", "there is no NVIDIA GPU"),
        ("CUDA error x:no kernel image is available for execution", "has no code for this GPU"),
        (
            "cuDNN is unavailable or disabled for CUDA",
            "cuDNN is missing; fix: pip install",
        ),
        ("CUDA failure 2: out of memory ; GPU=0", "too little free memory"),
        ("Available memory of 31488 is smaller than requested bytes of 589824", "raise gpu_memory_limit"),
        (
            "pages of C++ CUDA failure 999: unknown error ; GPU=0",
            "ONNX Runtime failed (CUDA failure 999: unknown error)",
        ),
        ("This session cannot use the graph capture feature", "fix: set cuda_graph to false"),
        ("several\nlines", "ONNX Runtime failed (several lines)"),
    ],
)
def test_a_gpu_that_does_not_work_is_named_in_a_line_and_auto_goes_on_with_the_cpu(
    model_folder, gpu_build, text, cause
):
    gpu_build(text)
    pipeline = MatchPipeline(model_folder, "auto")
    assert pipeline.provider == "cpu"
    assert cause in pipeline.fallback_reason
    assert pipeline.fallback_warning == pipeline.fallback_reason
    assert "\n" not in pipeline.fallback_reason
    pipeline.warm_up()
    with pytest.raises(ProviderError) as caught:
        MatchPipeline(model_folder, "cuda")
    assert cause.partition(";")[0] in str(caught.value)
    assert "set provider to auto or cpu" in str(caught.value)


@pytest.fixture
def build_for_cpus(monkeypatch):
    """Makes a build of ONNX Runtime for CPUs, on a machine with or without an NVIDIA driver."""

    def make(has_driver):
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
        problem = None if has_driver else providers.Problem("there is no NVIDIA driver", "install it")
        monkeypatch.setattr(providers, "_driver_problem", lambda: problem)

    return make


def test_on_a_build_for_cpus_auto_has_a_reason_and_no_warning(model_folder, build_for_cpus):
    build_for_cpus(has_driver=True)
    auto = MatchPipeline(model_folder, "auto")
    assert "the model runs on cpu: this build of ONNX Runtime" in auto.fallback_reason
    assert auto.fallback_warning == ""
    assert MatchPipeline(model_folder, "cpu").fallback_reason == ""
    by_name = MatchPipeline(model_folder, "cuda", allow_fallback=True)
    assert by_name.fallback_warning == auto.fallback_reason


def test_nothing_needs_a_fix_on_a_robot_without_an_nvidia_driver_unless_it_asks_for_a_gpu(
    model_folder, build_for_cpus
):
    build_for_cpus(has_driver=False)
    auto = MatchPipeline(model_folder, "auto")
    assert (auto.provider, auto.fallback_reason) == ("cpu", "")
    with pytest.raises(ProviderError, match=r"here: there is no NVIDIA driver; .*fix: install it, or set"):
        MatchPipeline(model_folder, "cuda")


def test_a_build_for_gpus_that_another_build_hides_is_a_reason_to_warn(
    model_folder, build_for_cpus, monkeypatch
):
    build_for_cpus(has_driver=True)
    monkeypatch.setattr(providers, "_is_installed", lambda package: True)
    says = "onnxruntime and onnxruntime-gpu are both installed and the first hides the second"
    assert says in MatchPipeline(model_folder, "auto").fallback_warning


@pytest.mark.parametrize(("is_hidden", "removed"), [(False, ""), (True, " onnxruntime-gpu")])
def test_each_version_of_cuda_has_a_command_of_its_own_which_can_be_pasted(
    model_folder, build_for_cpus, monkeypatch, is_hidden, removed
):
    build_for_cpus(has_driver=True)
    monkeypatch.setattr(providers, "_is_installed", lambda package: is_hidden)
    fix = MatchPipeline(model_folder, "auto").fallback_reason.partition("; fix: ")[2]
    commands = dict(part.split(": ") for part in fix.split("; "))
    install = f"pip uninstall -y onnxruntime{removed} && pip install 'onnxruntime-gpu[cuda,cudnn]"
    assert commands == {
        "for CUDA 13 (driver 580 or later)": f"{install}>=1.27'",
        "for CUDA 12": f"{install}<1.27'",
    }


def test_a_model_half_of_which_the_gpu_can_run_says_where_each_half_runs(pipeline_of_halves):
    assert pipeline_of_halves.provider == "cuda (extractor), cpu (matcher)"
    assert "the model runs on cuda (extractor), cpu (matcher): " in pipeline_of_halves.fallback_warning


@pytest.fixture
def pipeline_of_halves(model_folder):
    pipeline = MatchPipeline(model_folder, "cpu")
    pipeline._sessions["extractor"].provider = "cuda"
    pipeline._sessions["matcher"].fallback_reason = "too little memory"
    return pipeline


@pytest.mark.parametrize(
    ("available", "version", "command"),
    [
        ([CPU], "99.0", "fix: pip install 'onnxruntime>=99.0'"),
        (
            [CUDA, CPU],
            "1.25",
            "fix: for CUDA 13 (driver 580 or later): pip install 'onnxruntime-gpu[cuda,cudnn]>=1.27'; "
            "for CUDA 12: pip install 'onnxruntime-gpu[cuda,cudnn]>=1.25,<1.27'",
        ),
        (
            [CUDA, CPU],
            "99.0",
            "fix: for CUDA 13 (driver 580 or later): pip install 'onnxruntime-gpu[cuda,cudnn]>=99.0'",
        ),
    ],
    ids=["cpu", "cuda", "cuda 13"],
)
def test_a_fix_installs_no_other_build_over_the_one_that_is_here(
    monkeypatch, tmp_path, available, version, command
):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    monkeypatch.setattr(onnxruntime, "__version__", "1.20.0")
    path = tmp_path / "extractor.onnx"
    path.write_bytes(onnx_files.model(min_onnxruntime=version))
    with pytest.raises(ModelError) as caught:
        GraphSession(path, "extractor")
    assert f"{command}, or export it for this one: " in str(caught.value)


@pytest.mark.parametrize(
    ("provider", "options"),
    [("cuda", "--target gpu"), ("tensorrt", "--target portable --image-size 640x480 --batch 2 --pairs 1")],
)
def test_a_gpu_is_not_given_an_adaptive_export(monkeypatch, tmp_path, provider, options):
    monkeypatch.setattr(providers, "_driver_problem", lambda: None)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [*providers.ORT_NAMES.values()])
    path = tmp_path / "extractor.onnx"
    path.write_bytes(onnx_files.model(adaptive=True))
    with pytest.raises(
        ProviderError, match=rf"is adaptive, which runs on CPUs only; .*--max-keypoints 512 {options} -o "
    ):
        GraphSession(path, "extractor", provider=provider)


def test_the_memory_of_a_gpu_is_limited_where_somebody_wants_it():
    (_, limited), _ = providers.provider_options("cuda", onnx_files.INFO, False, gpu_memory_limit=512)
    (_, free), _ = providers.provider_options("cuda", onnx_files.INFO, False)
    assert limited["gpu_mem_limit"] == str(512 * 2**20)
    assert "gpu_mem_limit" not in free


@pytest.mark.parametrize(
    ("version", "graph", "precision", "batch", "nhwc"),
    [
        ("1.31.1", "extractor", "fp16", 2, "1"),
        ("1.31.1", "extractor", "fp16", None, "0"),
        ("1.31.1", "extractor", "fp32", 2, "0"),
        ("1.31.1", "matcher", "fp16", 2, "0"),
        ("1.23.2", "extractor", "fp16", 2, "0"),
    ],
)
def test_maps_lie_as_cudnns_half_precision_kernels_read_them_where_that_is_faster(
    monkeypatch, version, graph, precision, batch, nhwc
):
    monkeypatch.setattr(onnxruntime, "__version__", version)
    info = replace(onnx_files.INFO, graph=graph, precision=precision, batch=batch)
    (_, options), _ = providers.provider_options("cuda", info, cuda_graph=False)
    assert options["prefer_nhwc"] == nhwc


def test_tensorrt_keeps_to_the_types_of_a_half_precision_export(monkeypatch, tmp_path):
    monkeypatch.setenv("LIGHTGLUE_ROS_HOME", str(tmp_path))
    monkeypatch.setattr(onnxruntime, "__version__", "1.32.0")
    info = replace(onnx_files.INFO, precision="fp16", tensorrt=True, batch=2)
    (name, options), (_, cuda), last = providers.provider_options("tensorrt", info, cuda_graph=False)
    assert (name, last) == ("TensorrtExecutionProvider", CPU)
    assert options["trt_fp16_enable"] == cuda["use_tf32"] == "0"
    assert cuda["prefer_nhwc"] == "0"  # which was not tried together with TensorRT
    assert Path(options["trt_engine_cache_path"]).is_dir()
