"""Execution providers of ONNX Runtime: their options, and the reason why one does not run on this machine."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import importlib.util
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lightglue_ros.core import store
from lightglue_ros.core.contract import EXTRACTOR, NOT_ADAPTIVE, GraphInfo, for_gpus, other_export
from lightglue_ros.errors import ProviderError

ORT_NAMES = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
PROVIDERS = ("auto", *ORT_NAMES)
NEEDS = {
    "cuda": "a GPU, and CUDA and cuDNN of the versions that ONNX Runtime names",
    "tensorrt": "a GPU, CUDA, cuDNN and TensorRT, and a model exported for TensorRT",
}

_GPU_PACKAGE = "onnxruntime-gpu[cuda,cudnn]"
# The first version for CUDA 13, which needs driver 580; those before are for CUDA 12.
_FIRST_WITH_CUDA_13 = "1.27"
_CHECK_DRIVER = "install NVIDIA's driver until nvidia-smi shows the GPU; a container needs --gpus all"

# Texts of ONNX Runtime, CUDA and cuDNN, with what they mean on a robot and what helps.
_CAUSES = (
    (
        r"driver version is insufficient|unsupported toolchain",
        "the NVIDIA driver is older than the CUDA of this build of ONNX Runtime",
        f"update the driver, or pip install '{_GPU_PACKAGE}<{_FIRST_WITH_CUDA_13}', which is for CUDA 12",
    ),
    (r"no CUDA-capable device|invalid device ordinal", "there is no NVIDIA GPU", _CHECK_DRIVER),
    (
        r"no kernel image",
        "this build of ONNX Runtime has no code for this GPU",
        "install a build that has it (on a Jetson NVIDIA's own)",
    ),
    (
        r"out of memory|Failed to allocate memory|smaller than requested bytes",
        "the GPU has too little free memory",
        "raise gpu_memory_limit if it is set",
    ),
    (
        r"cannot use the graph capture feature",
        "the model cannot be recorded as a CUDA graph",
        "set cuda_graph to false",
    ),
)
# cudaStreamPerThread, CUDA's default stream of the calling thread. The runs of all sessions of a thread
# follow each other in this stream, and CUDA's blocking copies wait for it. A session's own stream has no such
# order, and each run would have to wait for the GPU.
_STREAM = {"user_compute_stream": "2"}
# Oldest version of ONNX Runtime that the option prefer_nhwc was tried with; 1.31.1 and 1.32 were.
_OLDEST_TRIED_WITH_NHWC = "1.31"
# Of ONNX Runtime's log; it begins with the first one.
_LOG_WARNINGS, LOG_ERRORS, LOG_FATAL_ERRORS = 2, 3, 4


class Problem(NamedTuple):
    """The reason why a provider cannot run a model here, and what helps."""

    reason: str
    fix: str

    def __str__(self) -> str:
        return f"{self.reason}; fix: {self.fix}" if self.fix else self.reason


def onnxruntime() -> Any:
    """Import ONNX Runtime, which comes in several builds; `pip install .` leaves the choice to the user.

    Raises:
        ProviderError: it is not installed, or cannot be loaded.
    """
    try:
        import onnxruntime
    except ImportError as missing:
        raise ProviderError(
            f"ONNX Runtime cannot be imported ({missing})",
            fix=f"for CPUs: pip install onnxruntime; {_install_for_gpu()}",
        ) from missing
    return onnxruntime


def onnxruntime_is_older_than(version: str) -> bool:
    """True if the installed ONNX Runtime is older than a version such as ``1.25``."""
    return _is_older(onnxruntime().__version__, version)


def _is_older(version: str, other: str) -> bool:
    first, second = ([int(part) for part in text.split(".")[:2]] for text in (version, other))
    return first < second


def is_in_build(provider: str) -> bool:
    """Return True if the installed build of ONNX Runtime has a provider, which may still not load."""
    return ORT_NAMES[provider] in onnxruntime().get_available_providers()


def is_for_cpus() -> bool:
    """Return True if no build for NVIDIA GPUs is installed, not even one that another build hides."""
    return not is_in_build("cuda") and not _is_installed("onnxruntime-gpu")


def _is_installed(package: str) -> bool:
    return any(importlib.metadata.distributions(name=package))


def default_provider() -> str:
    """Return what ``auto`` tries first: cpu if neither the machine nor the build is for GPUs, else cuda."""
    return "cpu" if is_for_cpus() and _driver_problem() else "cuda"


def install_command(version: str) -> str:
    """Return the command that installs a version or later of the build that is here, and of no other."""
    if is_in_build("cuda"):
        return _install_for_gpu(version)
    return f"pip install 'onnxruntime>={version}'"


def _install_for_gpu(version: str = "0.0", before: str = "") -> str:
    """Return the command for each version of CUDA that has a build of at least a version.

    Args:
        before: a command that must have succeeded before.
    """
    first = _FIRST_WITH_CUDA_13
    is_in_both = _is_older(version, first)
    ranges = {"for CUDA 13 (driver 580 or later)": f">={first if is_in_both else version}"}
    if is_in_both:
        least = "" if version == "0.0" else f">={version},"
        ranges["for CUDA 12"] = f"{least}<{first}"
    install = f"{before} && pip install" if before else "pip install"
    return "; ".join(f"{cuda}: {install} '{_GPU_PACKAGE}{allowed}'" for cuda, allowed in ranges.items())


def provider_options(
    provider: str, info: GraphInfo, cuda_graph: bool, gpu_memory_limit: int = 0
) -> list[str | tuple[str, dict[str, str]]]:
    """List the providers for a file, best first, in the form that ONNX Runtime takes.

    For the arguments see `GraphSession`.
    """
    if provider == "cpu":
        return [ORT_NAMES["cpu"]]
    is_fast = info.graph == EXTRACTOR and info.precision == "fp16" and info.is_static
    # Not for the CUDA provider behind TensorRT, with which the option was not tried.
    nhwc = provider == "cuda" and is_fast and not onnxruntime_is_older_than(_OLDEST_TRIED_WITH_NHWC)
    cuda = {
        # TF32 rounds products to 10 bits, and fp32 results must equal the original's.
        "use_tf32": "0",
        # The default tries all algorithms for each new shape, which is reported to take 0.6 s per shape.
        "cudnn_conv_algo_search": "HEURISTIC",
        # A Jetson's memory is also the CPU's. By default a convolution may take all that is free, and the
        # arena doubles each time that it grows.
        "cudnn_conv_use_max_workspace": "0",
        "arena_extend_strategy": "kSameAsRequested",
        # cuDNN's fast kernels for float16 read the channels of a pixel next to each other. ONNX Runtime then
        # keeps all maps so: on an H100 0.88 of the time for XFeat's extractor, 0.84 for ALIKED's. In fp32 it
        # takes longer, and with free shapes ONNX Runtime then computes shapes on the GPU, and waits for them.
        "prefer_nhwc": "1" if nhwc else "0",
        "enable_cuda_graph": "1" if cuda_graph else "0",
        **_STREAM,
    }
    if gpu_memory_limit:
        cuda["gpu_mem_limit"] = str(gpu_memory_limit << 20)
    if provider == "cuda":
        return [(ORT_NAMES["cuda"], cuda), ORT_NAMES["cpu"]]
    engines = store.engines_dir()
    engines.mkdir(parents=True, exist_ok=True)
    tensorrt = {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(engines),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(engines),
        # With 1, TensorRT may use float16 also where an fp16 export keeps float32, such as for positions.
        "trt_fp16_enable": "0",
        **_STREAM,
    }
    return [(ORT_NAMES["tensorrt"], tensorrt), (ORT_NAMES["cuda"], cuda), ORT_NAMES["cpu"]]


def find_problem(provider: str, path: Path, info: GraphInfo) -> Problem | None:
    """Return the reason why a provider cannot run a model, as far as it shows before the model is loaded."""
    return (
        _driver_problem()
        or _build_problem(provider)
        or _model_problem(provider, path, info)
        or _library_problem(provider)
    )


def _driver_problem() -> Problem | None:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return Problem(f"there is no NVIDIA driver ({error})", _CHECK_DRIVER)
    return None


def _build_problem(provider: str) -> Problem | None:
    ort = onnxruntime()
    if is_in_build(provider):
        return None
    has = ", ".join(ort.get_available_providers())
    if _is_installed("onnxruntime") and _is_installed("onnxruntime-gpu"):
        return Problem(
            "onnxruntime and onnxruntime-gpu are both installed and the first hides the second "
            f"(it has {has})",
            _install_for_gpu(before="pip uninstall -y onnxruntime onnxruntime-gpu"),
        )
    fix = _install_for_gpu(before="pip uninstall -y onnxruntime")
    return Problem(f"this build of ONNX Runtime {ort.__version__} has only {has}", fix)


def _model_problem(provider: str, path: Path, info: GraphInfo) -> Problem | None:
    changes = for_gpus(info)
    if provider == "tensorrt":
        portable = {"--target": "portable", "--image-size": "640x480", "--batch": "2", "--pairs": "1"}
        changes = NOT_ADAPTIVE | portable
    if info.adaptive:
        # ONNX Runtime's Compress reads outside of its memory once all pairs have stopped, and none is left.
        reason = f"{path} is adaptive, which runs on CPUs only"
    elif provider == "tensorrt" and not info.tensorrt:
        # TensorRT itself would find this after minutes of building.
        reason = f"{path} is not for TensorRT, which needs fixed shapes and operators of its list"
    else:
        return None
    return Problem(reason, other_export(path.parent, info, changes))


def _library_problem(provider: str) -> Problem | None:
    """Load the libraries of a provider, because ONNX Runtime itself would print many lines."""
    ort = onnxruntime()
    folder = Path(ort.__path__[0]) / "capi"
    if hasattr(ort, "preload_dlls"):
        # Finds CUDA and cuDNN in NVIDIA's Python wheels. It prints the names of missing libraries.
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()
    if provider == "tensorrt":
        # CUDA reads this when it starts. TensorRT has no option of its own for TF32 here.
        os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
        _load_tensorrt()
    try:
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / f"libonnxruntime_providers_{provider}.so"))
    except OSError as error:
        return Problem(f"a library is missing ({error})", _libraries(str(error)))
    return None


def _load_tensorrt() -> None:
    """Load TensorRT from its Python package, where ONNX Runtime does not look."""
    package = importlib.util.find_spec("tensorrt_libs")
    for folder in (package and package.submodule_search_locations) or ():
        for name in ("libnvinfer.so.*", "libnvinfer_plugin.so.*", "libnvonnxparser.so.*"):
            for library in Path(folder).glob(name):
                with contextlib.suppress(OSError):  # the provider's own library names what it lacks
                    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


def _libraries(missing: str) -> str:
    """Return the command that installs missing libraries of this build's CUDA."""
    ort = onnxruntime()
    cuda = (getattr(ort, "cuda_version", "") or "12").partition(".")[0]
    if "libnvinfer" in missing or "libnvonnxparser" in missing:
        # From 11 on TensorRT's libraries have other names.
        return f"pip install 'tensorrt-cu{cuda}<11'"
    return f"pip install '{_GPU_PACKAGE}=={ort.__version__}', which brings CUDA {cuda} and cuDNN"


def explain(error: Exception) -> Problem:
    """Describe in a line why ONNX Runtime could not open a session or run a graph."""
    text = " ".join(str(error).split())
    if "cuDNN is unavailable" in text:
        return Problem("cuDNN is missing", _libraries(text))
    for pattern, cause, fix in _CAUSES:
        if re.search(pattern, text):
            return Problem(cause, fix)
    # ONNX Runtime puts pages of C++ before CUDA's own words.
    found = re.search(r"CUDA (?:failure|error) [^;]*", text)
    detail = found[0].strip() if found else text[:400]
    return Problem(f"ONNX Runtime failed ({detail or type(error).__name__})", "")


@contextlib.contextmanager
def silent_onnxruntime() -> Iterator[None]:
    """Keep ONNX Runtime from printing an error that it raises as well.

    Afterwards the level of its log is WARNING, its default. A level that the program had set before is lost,
    because ONNX Runtime has no function that returns the level.
    """
    ort = onnxruntime()
    ort.set_default_logger_severity(LOG_FATAL_ERRORS)
    try:
        yield
    finally:
        ort.set_default_logger_severity(_LOG_WARNINGS)
