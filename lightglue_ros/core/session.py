"""ONNX Runtime sessions: which provider really runs, and whether a file is one of ours."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import io
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from lightglue_ros.core.contract import INPUTS, OUTPUTS, GraphInfo
from lightglue_ros.core.denormals import flushed_denormals, restored_floating_point
from lightglue_ros.core.errors import ConfigError, ModelError, ProviderError

if TYPE_CHECKING:
    import onnxruntime as ort

ORT_NAMES = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
PROVIDERS = ("auto", *ORT_NAMES)

_LOG_ERRORS_ONLY = 3
# What a run finds wrong is raised; a run that is cancelled would log it as well.
_LOG_FATAL_ONLY = 4
_CPU_SETTINGS = {
    # See `denormals`: with them a frame takes half as long again.
    "session.set_denormal_as_zero": "1",
    # Threads of one session that spin for work take the cores from the other session, and from the camera
    # drivers of a small robot: without it a stereo frame takes two thirds of the time on two cores.
    "session.intra_op.allow_spinning": "0",
}


def onnxruntime() -> ModuleType:
    """ONNX Runtime, which comes in several builds; `pip install .` leaves the choice to the user.

    Raises:
        ProviderError: none is installed, or it cannot be loaded.
    """
    try:
        import onnxruntime
    except ImportError as missing:
        raise ProviderError(
            f"ONNX Runtime cannot be imported ({missing})",
            fix="pip install onnxruntime (CPU), or pip install onnxruntime-gpu (NVIDIA)",
        ) from missing
    return onnxruntime


class GraphSession:
    """One of our graphs, checked and loaded.

    Args:
        path: the .onnx file.
        graph: which graph it has to be: ``extractor``, ``matcher`` or ``pipeline``.
        provider: ``auto`` (cuda where it really loads, else cpu), ``cpu`` or ``cuda``.
        num_threads: threads of the CPU provider; 0 leaves it to ONNX Runtime (one per core).
        allow_fallback: take the CPU where a provider asked for by name does not load.

    Attributes:
        info: what the file says about itself.
        provider: the provider that loaded, ``cpu`` or ``cuda``.

    Raises:
        ConfigError: unknown provider or negative number of threads.
        ModelError: the file is missing, broken, not ours or of another kind.
        ProviderError: the provider asked for by name did not load, or there is no ONNX Runtime.
    """

    def __init__(
        self,
        path: Path,
        graph: str,
        *,
        provider: str = "auto",
        num_threads: int = 0,
        allow_fallback: bool = False,
    ) -> None:
        if provider not in PROVIDERS:
            raise ConfigError(f"provider '{provider}' is unknown", allowed=", ".join(PROVIDERS))
        if num_threads < 0:
            raise ConfigError(f"num_threads is {num_threads}", allowed="0 (one per core) or more")
        self.path = path
        self._session, self.provider = _open(path, provider, num_threads, allow_fallback)
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.info = GraphInfo.from_metadata(metadata, str(path))
        self._check_kind(graph)
        self._output_names = list(OUTPUTS[graph])
        self._run_options = onnxruntime().RunOptions()
        self._run_options.log_severity_level = _LOG_FATAL_ONLY

    def run(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the graph on `tensors`, named and typed as in `contract`."""
        with flushed_denormals():
            values = self._session.run(self._output_names, dict(tensors), self._run_options)
        return dict(zip(self._output_names, values, strict=True))

    def cancel(self) -> None:
        """End the run in work, if any, and let no other begin; from any thread. Those runs raise."""
        self._run_options.terminate = True

    def _check_kind(self, graph: str) -> None:
        inputs = {tensor.name for tensor in self._session.get_inputs()}
        outputs = {tensor.name for tensor in self._session.get_outputs()}
        if self.info.graph != graph or inputs != set(INPUTS[graph]) or outputs != set(OUTPUTS[graph]):
            raise ModelError(
                f"{self.path} is a {self.info.graph} with inputs {sorted(inputs)}, not a {graph}",
                allowed=f"a {graph} with inputs {sorted(INPUTS[graph])}",
                fix=f"export it again: lightglue_ros export {self.info.model} --split",
            )


def _open(
    path: Path, provider: str, num_threads: int, allow_fallback: bool
) -> tuple[ort.InferenceSession, str]:
    """Open a session and say which provider it really has."""
    if provider != "cpu":
        problem = _cuda_problem()
        if problem is None:
            # TF32 rounds products to 10 bits, and fp32 is to equal the original's.
            session = _create(path, [(ORT_NAMES["cuda"], {"use_tf32": "0"}), ORT_NAMES["cpu"]], num_threads)
            if ORT_NAMES["cuda"] in session.get_providers():
                return session, "cuda"
            problem = "its libraries load, but no usable GPU was found (see ONNX Runtime's message above)"
        if provider == "cuda" and not allow_fallback:
            raise ProviderError(
                f"provider 'cuda' did not load: {problem}",
                allowed="cuda where a GPU, CUDA and cuDNN of the versions that ONNX Runtime names are there",
                fix="pip install 'onnxruntime-gpu[cuda,cudnn]', or set provider to auto or cpu, "
                "or allow_fallback to true",
            )
    return _create(path, [ORT_NAMES["cpu"]], num_threads), "cpu"


def _create(path: Path, providers: list[str | tuple[str, dict]], num_threads: int) -> ort.InferenceSession:
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _LOG_ERRORS_ONLY
    for key, value in _CPU_SETTINGS.items():
        options.add_session_config_entry(key, value)
    try:
        with restored_floating_point():
            return ort.InferenceSession(str(path), options, providers=providers)
    # ONNX Runtime's exceptions have no common base below RuntimeError and Exception.
    except Exception as error:
        raise ModelError(
            f"ONNX Runtime {ort.__version__} cannot load {path} ({_first_line(error)})",
            allowed="a whole .onnx file written by 'lightglue_ros export'",
            fix="copy the file again, or export it again: lightglue_ros export xfeat --split",
        ) from error


def _cuda_problem() -> str | None:
    """Why CUDA cannot load, found out without the lines that ONNX Runtime prints when it tries."""
    ort = onnxruntime()
    available = ort.get_available_providers()
    if ORT_NAMES["cuda"] not in available:
        has = ", ".join(available)
        if _is_installed("onnxruntime") and _is_installed("onnxruntime-gpu"):
            return (
                "onnxruntime and onnxruntime-gpu are both installed and the first hides the second "
                f"(it has {has}): pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
            )
        return f"this build of ONNX Runtime {ort.__version__} has only {has}"
    if hasattr(ort, "preload_dlls"):
        # For CUDA and cuDNN from NVIDIA's Python wheels. It prints what it does not find.
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()
    folder = Path(ort.__file__).parent / "capi"
    try:
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / "libonnxruntime_providers_cuda.so"))
    except OSError as error:
        return str(error)
    return None


def _is_installed(distribution: str) -> bool:
    return any(importlib.metadata.distributions(name=distribution))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
