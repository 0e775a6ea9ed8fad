"""ONNX Runtime sessions: choose the provider that really runs, and check that a file is an export of ours."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lightglue_ros.core import store
from lightglue_ros.core.contract import INPUTS, OUTPUTS, GraphInfo, export_command
from lightglue_ros.core.denormals import flushed_denormals, restored_floating_point
from lightglue_ros.core.files import mistaken_file
from lightglue_ros.errors import ConfigError, ModelError, ProviderError

if TYPE_CHECKING:
    import onnxruntime as ort

ORT_NAMES = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
PROVIDERS = ("auto", *ORT_NAMES)
_NEEDS = {
    "cuda": "a GPU, and CUDA and cuDNN of the versions that ONNX Runtime names",
    "tensorrt": "a GPU, CUDA, cuDNN and TensorRT, and a model exported for TensorRT",
    "openvino": "an Intel processor or GPU, and a build of ONNX Runtime for it",
}
_INSTALL = {
    "cuda": "pip uninstall -y onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]'",
    "tensorrt": "pip uninstall -y onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]' tensorrt",
    "openvino": "pip uninstall -y onnxruntime && pip install onnxruntime-openvino",
}

_LOG_ERRORS_ONLY = 3
# An error in a run is raised; a cancelled run would log it as well.
_LOG_FATAL_ONLY = 4
_TYPES = {
    "tensor(bool)": np.bool_,
    "tensor(float)": np.float32,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
}
_CPU_SETTINGS = {
    # Denormal numbers make a frame take 1.5 times as long, see `denormals`.
    "session.set_denormal_as_zero": "1",
    # Threads that may spin within a run do not spin between runs: the other session needs the cores.
    "session.force_spinning_stop": "1",
}


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
            fix="pip install onnxruntime (CPU), or pip install onnxruntime-gpu (NVIDIA)",
        ) from missing
    return onnxruntime


def onnxruntime_is_older_than(version: str) -> bool:
    """True if the installed ONNX Runtime is older than a version such as ``1.25``."""
    installed, wanted = (
        [int(part) for part in text.split(".")[:2]] for text in (onnxruntime().__version__, version)
    )
    return installed < wanted


class GraphSession:
    """One of our graphs, checked and loaded.

    Args:
        graph: the graph that the file must hold: ``extractor``, ``matcher`` or ``pipeline``.
        provider: ``auto`` (cuda if it really loads, else cpu), ``cpu``, ``cuda``, ``tensorrt`` (its engines
            are built for minutes at the first start and kept in the model store) or ``openvino``.
        num_threads: threads of the CPU provider; 0 leaves it to ONNX Runtime (one per core).
        allow_fallback: use the CPU if a provider that was asked for by name does not load.
        cuda_graph: with cuda, record the first run as a CUDA graph and replay it; ignored with other
            providers. For static exports.
        spin_threads: threads of the CPU provider spin while they wait for the next operation of a run. This
            can save a tenth of the time where no other process wants the cores. Where one does, spinning
            threads take them from it and from each other, and a run takes up to twice as long.

    Attributes:
        provider: the provider that loaded.

    Raises:
        ConfigError: the provider is unknown, the number of threads is negative, or a CUDA graph is asked for
            with free shapes.
        ModelError: the file is missing, broken, not an export of ours, another graph, or for a newer ONNX
            Runtime.
        ProviderError: the provider asked for by name did not load, or ONNX Runtime is missing.
    """

    def __init__(
        self,
        path: Path,
        graph: str,
        *,
        provider: str = "auto",
        num_threads: int = 0,
        allow_fallback: bool = False,
        cuda_graph: bool = False,
        spin_threads: bool = False,
    ) -> None:
        if provider not in PROVIDERS:
            raise ConfigError(f"provider '{provider}' is unknown", allowed=", ".join(PROVIDERS))
        if num_threads < 0:
            raise ConfigError(f"num_threads is {num_threads}", allowed="0 (one per core) or more")
        self.path = path
        threads = _Threads(num_threads, spin_threads)
        self._session, self.provider = _open(path, provider, threads, allow_fallback, cuda_graph)
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.info = GraphInfo.from_metadata(metadata, str(path))
        self._check(graph, cuda_graph)
        replays = cuda_graph and self.provider == "cuda"
        self._cuda_graph = CudaGraphRunner(self._session, "cuda") if replays else None
        self._run_options = onnxruntime().RunOptions()
        self._run_options.log_severity_level = _LOG_FATAL_ONLY

    def run(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the graph on its inputs among `tensors`, named and typed as in `contract`."""
        if self._cuda_graph is not None:
            return self._cuda_graph.run(tensors, self._run_options)
        inputs = {name: tensors[name] for name in INPUTS[self.info.graph]}
        names = OUTPUTS[self.info.graph]
        with flushed_denormals():
            values = self._session.run(list(names), inputs, self._run_options)
        return dict(zip(names, values, strict=True))

    def cancel(self) -> None:
        """End the present run and refuse all later ones, which raise; from any thread."""
        self._run_options.terminate = True

    def _check(self, graph: str, cuda_graph: bool) -> None:
        """Check that the file holds the graph, and that it runs here."""
        export = export_command(self.path, self.info.model)
        least = self.info.min_onnxruntime
        if onnxruntime_is_older_than(least):
            raise ModelError(
                f"{self.path} is for ONNX Runtime {least} or later, and "
                f"{onnxruntime().__version__} is installed",
                fix=f"pip install 'onnxruntime>={least}', or export it for this one: {export} --portable",
            )
        inputs = {tensor.name for tensor in self._session.get_inputs()}
        outputs = {tensor.name for tensor in self._session.get_outputs()}
        if self.info.graph != graph or inputs != set(INPUTS[graph]) or outputs != set(OUTPUTS[graph]):
            raise ModelError(
                f"{self.path} is a {self.info.graph} with inputs {sorted(inputs)}, not a {graph}",
                allowed=f"a {graph} with inputs {sorted(INPUTS[graph])}",
                fix=f"export it again: {export}",
            )
        if cuda_graph and not self.info.is_static:
            raise ConfigError(
                f"cuda_graph is on, and {self.path} has free shapes",
                allowed="a model with fixed shapes",
                fix=f"{export} --image-size 640x480",
            )


class CudaGraphRunner:
    """A session of a static export whose inputs and outputs stay at the same addresses on a device.

    A CUDA graph replays a run with the addresses that the run had. So inputs and outputs are bound once. Each
    run copies its inputs to them and its outputs from them; images are copied as bytes.

    Args:
        device: the device that holds the tensors, ``cuda`` or ``cpu``.
    """

    def __init__(self, session: ort.InferenceSession, device: str) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._inputs = {it.name: self._allocate(it, device) for it in session.get_inputs()}
        self._outputs = {it.name: self._allocate(it, device) for it in session.get_outputs()}
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)

    def run(self, tensors: Mapping[str, np.ndarray], options: ort.RunOptions) -> dict[str, np.ndarray]:
        """Run the graph on all its inputs, with its shapes and types; return copies of all outputs."""
        for name, value in self._inputs.items():
            value.update_inplace(np.ascontiguousarray(tensors[name]))
        self._session.run_with_iobinding(self._binding, options)
        return {name: np.array(value.numpy()) for name, value in self._outputs.items()}

    @staticmethod
    def _allocate(tensor: ort.NodeArg, device: str) -> ort.OrtValue:
        return onnxruntime().OrtValue.ortvalue_from_shape_and_type(tensor.shape, _TYPES[tensor.type], device)


class _Threads(NamedTuple):
    """Threads of the CPU provider."""

    number: int
    spin: bool  # while they wait within a run


def _open(
    path: Path, provider: str, threads: _Threads, allow_fallback: bool, cuda_graph: bool
) -> tuple[ort.InferenceSession, str]:
    """Open a session; return it with the provider that really loaded."""
    wanted = "cuda" if provider == "auto" else provider
    if wanted != "cpu":
        session = _open_on_device(path, wanted, threads, cuda_graph)
        if not isinstance(session, str):
            return session, wanted
        if provider != "auto" and not allow_fallback:
            raise ProviderError(
                f"provider '{provider}' did not load: {session}",
                allowed=f"{provider} on a machine with {_NEEDS[provider]}",
                fix=f"{_INSTALL[provider]}, or set provider to auto or cpu, or allow_fallback to true",
            )
    return _create(path, [ORT_NAMES["cpu"]], threads), "cpu"


def _open_on_device(
    path: Path, provider: str, threads: _Threads, cuda_graph: bool
) -> ort.InferenceSession | str:
    """Open a session with a provider other than the CPU's, or return the reason why it cannot be opened."""
    problem = _loading_problem(provider)
    if problem is not None:
        return problem
    # The metadata, before a session is opened that can run the graph.
    session = _create(path, [ORT_NAMES["cpu"]], _Threads(1, spin=False), "ORT_DISABLE_ALL")
    info = GraphInfo.from_metadata(session.get_modelmeta().custom_metadata_map, str(path))
    if provider == "tensorrt" and not info.tensorrt:
        # TensorRT itself would find this after minutes of building.
        return (
            f"{path} is not for TensorRT, which needs fixed shapes and operators of its list: "
            f"lightglue_ros export {info.model} --split --portable --image-size 640x480 --batch 2 --pairs 1"
        )
    # The last level of rewriting a graph aborts on CUDA with fp16 and free shapes.
    aborts = provider == "cuda" and info.precision == "fp16" and not info.is_static
    optimisation = "ORT_ENABLE_EXTENDED" if aborts else "ORT_ENABLE_ALL"
    session = _create(path, _provider_options(provider, info, cuda_graph), threads, optimisation)
    if ORT_NAMES[provider] in session.get_providers():
        return session
    return "its libraries load, but it found no device to run on (see ONNX Runtime's message above)"


def _provider_options(
    provider: str, info: GraphInfo, cuda_graph: bool
) -> list[str | tuple[str, dict[str, str]]]:
    """List the providers for a file, best first, in the form that ONNX Runtime takes."""
    # TF32 rounds products to 10 bits, and fp32 results must equal the original's.
    cuda = (ORT_NAMES["cuda"], {"use_tf32": "0", "enable_cuda_graph": "1" if cuda_graph else "0"})
    if provider == "cuda":
        return [cuda, ORT_NAMES["cpu"]]
    if provider == "openvino":
        return [ORT_NAMES["openvino"], ORT_NAMES["cpu"]]
    engines = store.engines_dir()
    engines.mkdir(parents=True, exist_ok=True)
    cached = {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(engines),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(engines),
        "trt_fp16_enable": "1" if info.precision == "fp16" else "0",
    }
    return [(ORT_NAMES["tensorrt"], cached), cuda, ORT_NAMES["cpu"]]


def _create(
    path: Path,
    providers: list[str | tuple[str, dict[str, str]]],
    threads: _Threads,
    optimisation: str = "ORT_ENABLE_ALL",
) -> ort.InferenceSession:
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads.number
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if threads.spin else "0")
    options.inter_op_num_threads = 1
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, optimisation)
    options.log_severity_level = _LOG_ERRORS_ONLY
    for key, value in _CPU_SETTINGS.items():
        options.add_session_config_entry(key, value)
    try:
        with restored_floating_point():
            return ort.InferenceSession(str(path), options, providers=providers)
    # ONNX Runtime's exceptions have no common base below RuntimeError and Exception.
    except Exception as error:
        if os.access(path, os.R_OK) and (mistaken := mistaken_file(path.read_bytes())):
            found, fix = mistaken
            raise ModelError(f"{path} is {found}", allowed="the .onnx file itself", fix=fix) from error
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(
            f"ONNX Runtime {ort.__version__} cannot load {path} ({reason})",
            allowed="a whole .onnx file written by 'lightglue_ros export'",
            fix=f"copy the file again, or export it again: {export_command(path)}",
        ) from error


def _loading_problem(provider: str) -> str | None:
    """Return the reason why a provider cannot load; ONNX Runtime itself would print many lines."""
    ort = onnxruntime()
    available = ort.get_available_providers()
    if ORT_NAMES[provider] not in available:
        has = ", ".join(available)
        builds = ("onnxruntime", "onnxruntime-gpu")
        if all(any(importlib.metadata.distributions(name=build)) for build in builds):
            return (
                "onnxruntime and onnxruntime-gpu are both installed and the first hides the second "
                f"(it has {has}): pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
            )
        return f"this build of ONNX Runtime {ort.__version__} has only {has}"
    if hasattr(ort, "preload_dlls"):
        # Finds CUDA and cuDNN in NVIDIA's Python wheels. It prints the names of missing libraries.
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()
    folder = Path(ort.__path__[0]) / "capi"
    try:
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / f"libonnxruntime_providers_{provider}.so"))
    except OSError as error:
        return str(error)
    return None
