"""ONNX Runtime sessions of our exports, on a provider that really runs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from lightglue_ros.core import providers
from lightglue_ros.core.contract import (
    EXTRACTOR,
    INPUTS,
    MATCHER,
    NO_MASKS,
    OUTPUTS,
    GraphInfo,
    empty_inputs,
    export_command,
    for_gpus,
    other_export,
)
from lightglue_ros.core.denormals import flushed_denormals, restored_floating_point
from lightglue_ros.core.device_lock import device_lock
from lightglue_ros.core.onnx_metadata import read_metadata
from lightglue_ros.core.providers import ORT_NAMES, PROVIDERS, Problem, onnxruntime
from lightglue_ros.core.row_threads import RowThreads, Run, Tensors, usable_cores
from lightglue_ros.errors import ConfigError, ModelError, ProviderError

if TYPE_CHECKING:
    import onnxruntime as ort

_CPU_SETTINGS = {
    # Denormal numbers make a frame take 1.5 times as long, see `denormals`.
    "session.set_denormal_as_zero": "1",
    # Threads that may spin within a run do not spin between runs: the other session needs the cores.
    "session.force_spinning_stop": "1",
}
# The next operation of a run often comes within this time, and a thread that sleeps until then wakes up late.
# Pairs per second of a node with XFeat on 2 idle cores, and of each of two such nodes together: 13.0 and 8.0
# if threads never spin, 14.9 and 9.1 with 5 µs, 15.9 and 8.6 with 10 µs, 16.8 and 7.6 with 20 µs.
_SPIN_MICROSECONDS = "5"
# Older versions do not know how long, and spin for up to 50 ms.
_SPINS_SHORTLY_SINCE = "1.26"
# Inputs with a value for each image or pair, by which a run on a CPU is divided. The first tells how many.
_OF_ROWS = {EXTRACTOR: ("images", "sizes", "scales", "valid", "masks"), MATCHER: ("pairs",)}


class DeviceTensors(Protocol):
    """Inputs and outputs of graphs, at addresses of a device."""

    def bind(self, binding: ort.IOBinding, graph: str) -> None:
        """Bind the inputs and outputs of a graph to their addresses."""


class GraphSession:
    """One of our graphs, checked and loaded.

    Args:
        graph: the graph that the file must hold: ``extractor``, ``matcher`` or ``pipeline``.
        provider: ``auto`` (cuda if it really runs the graph, else cpu), ``cpu``, ``cuda`` or ``tensorrt``
            (its engines are built for minutes at the first start and kept in the model store). After an
            attempt on a GPU, ONNX Runtime's log has its default level, WARNING (see `silent_onnxruntime`).
        num_threads: threads of the CPU provider; 0 leaves it to ONNX Runtime (one per core). If a graph with
            free shapes gets as many images (matcher: pairs) or more, each has a thread of its own.
        allow_fallback: use the CPU if a provider that was asked for by name cannot run the graph.
        cuda_graph: with cuda, record the first run on the device as a CUDA graph and replay it; ignored with
            other providers. For static exports.
        spin_threads: threads of the CPU provider spin for as long as they wait for the next operation of a
            run. By default they spin for 5 µs and then sleep (before ONNX Runtime 1.26 they sleep at once).
        gpu_memory_limit: most memory in MiB that the graph may take on a GPU with cuda, without CUDA's own
            libraries; 0 is no limit.

    Attributes:
        provider: the provider that runs the graph. It ran it once on empty inputs, unless it is the CPU's.
        fallback_reason: why the CPU runs the graph in place of another provider, and what helps; empty if it
            does not.
        fallback_is_expected: True if that is no reason to warn: the provider is ``auto``, and the build of
            ONNX Runtime is for CPUs. Without an NVIDIA driver ``auto`` is then ``cpu``, without a reason.

    Raises:
        ConfigError: the provider is unknown, the number of threads is negative, or a CUDA graph is asked for
            with free shapes.
        ModelError: the file is missing, broken, not an export of ours, another graph, or for a newer ONNX
            Runtime.
        ProviderError: the provider asked for by name cannot run the graph, or ONNX Runtime is missing.
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
        gpu_memory_limit: int = 0,
    ) -> None:
        if provider not in PROVIDERS:
            raise ConfigError(f"provider '{provider}' is unknown", allowed=", ".join(PROVIDERS))
        if num_threads < 0:
            raise ConfigError(f"num_threads is {num_threads}", allowed="0 (one per core) or more")
        if gpu_memory_limit < 0:
            raise ConfigError(f"gpu_memory_limit is {gpu_memory_limit}", allowed="0 (none) or more MiB")
        self.path = path
        self._session: ort.InferenceSession
        self._bound: DeviceTensors | None = None
        self.info = GraphInfo.from_metadata(read_metadata(path), str(path))
        self._check(graph, cuda_graph)
        self._whole_masks = empty_inputs(self.info).get("masks", NO_MASKS)
        self._threads, self._spins_long = num_threads, spin_threads
        self._threads_of_rows: RowThreads | None = None
        self._gpu_memory_limit = gpu_memory_limit
        self._run_options, self._device_options = onnxruntime().RunOptions(), onnxruntime().RunOptions()
        for options in (self._run_options, self._device_options):
            # An error that is raised need not be logged as well, nor a run that was cancelled.
            options.log_severity_level = providers.LOG_FATAL_ERRORS
        # A CUDA graph would replay the run with addresses that only this run had.
        self._run_options.add_run_config_entry("gpu_graph_id", "-1")
        self._device_options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self.provider = providers.default_provider() if provider == "auto" else provider
        self.fallback_reason, self.fallback_is_expected = "", False
        problem = self._open(cuda_graph)
        if problem is None:
            return
        if provider != "auto" and not allow_fallback:
            fix = f"{problem.fix}, or " if problem.fix else ""
            raise ProviderError(
                f"provider '{provider}' does not work here: {problem.reason}",
                allowed=f"{provider} on a machine with {providers.NEEDS[provider]}",
                fix=f"{fix}set provider to auto or cpu, or allow_fallback to true",
            )
        self.fallback_reason = str(problem)
        self.fallback_is_expected = provider == "auto" and providers.is_for_cpus()
        self.provider = "cpu"
        self._open(cuda_graph)

    def run(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the graph on its inputs among `tensors`, named and typed as in `contract`.

        A static export takes `NO_MASKS` as well.
        """
        inputs = {name: tensors[name] for name in INPUTS[self.info.graph]}
        if self.info.is_static and inputs.get("masks") is NO_MASKS:
            inputs["masks"] = self._whole_masks
        threads = self._threads or usable_cores()
        if self._splits_rows and 1 < threads <= len(inputs[_OF_ROWS[self.info.graph][0]]):
            return self._row_threads(threads).run(inputs)
        with nullcontext() if self.provider == "cpu" else device_lock:
            return self._run_by(self._session)(inputs)

    def _row_threads(self, count: int) -> RowThreads:
        """Return the threads for images or pairs, which the first run with so many of them makes."""
        if self._threads_of_rows is None:
            alone, together = self._run_by(self._load_on_cpu(num_threads=1)), self._run_by(self._session)
            self._threads_of_rows = RowThreads(count, _OF_ROWS[self.info.graph], alone, together)
        return self._threads_of_rows

    def _run_by(self, session: ort.InferenceSession) -> Run:
        """Return a function that runs the graph in a session; it does not hold on to this object."""
        return partial(_run_graph, session, OUTPUTS[self.info.graph], self._run_options)

    @property
    def _splits_rows(self) -> bool:
        """True if a run on a CPU may be several runs, each on some of the images or pairs."""
        return self.info.graph in _OF_ROWS and self.provider == "cpu" and not self.info.is_static

    def run_on_device(self, tensors: DeviceTensors) -> None:
        """Run the graph on tensors of a device; return before the device has done the work.

        Run it in one thread only: each thread has a stream and CUDA graphs of its own.
        """
        with flushed_denormals(), device_lock:
            if tensors is not self._bound:
                self._binding = self._session.io_binding()
                tensors.bind(self._binding, self.info.graph)
                self._bound = tensors
            self._session.run_with_iobinding(self._binding, self._device_options)

    def __del__(self) -> None:
        """Release the session, and what it holds on a GPU."""
        device_lock.release_soon(self)

    def cancel(self) -> None:
        """End the present run and refuse all later ones, which raise; from any thread."""
        self._run_options.terminate = self._device_options.terminate = True

    def _check(self, graph: str, cuda_graph: bool) -> None:
        """Check that the file holds the graph, and that it runs here."""
        export = export_command(self.path, self.info.model)
        least = self.info.min_onnxruntime
        if providers.onnxruntime_is_older_than(least):
            raise ModelError(
                f"{self.path} is for ONNX Runtime {least} or later, and "
                f"{onnxruntime().__version__} is installed",
                fix=f"{providers.install_command(least)}, or export it for this one: {export} --opset 18",
            )
        if self.info.graph != graph:
            fix = f"export it again: {export}"
            raise ModelError(f"{self.path} holds graph {self.info.graph}", allowed=graph, fix=fix)
        if cuda_graph and not self.info.is_static:
            raise ConfigError(
                f"cuda_graph is on, and {self.path} has free shapes",
                allowed="a model with fixed shapes",
                fix=other_export(
                    self.path.parent, self.info, for_gpus(self.info) | {"--image-size": "640x480"}
                ),
            )

    def _open(self, cuda_graph: bool) -> Problem | None:
        """Open a session of the provider; return the reason if it cannot run the graph."""
        if self.provider == "cpu":
            self._session = self._load_on_cpu(self._threads)
            return None
        problem = providers.find_problem(self.provider, self.path, self.info)
        if problem is not None:
            return problem
        with providers.silent_onnxruntime(), device_lock:
            try:
                self._session = self._create(cuda_graph, providers.LOG_FATAL_ERRORS, self._threads)
                if ORT_NAMES[self.provider] in self._session.get_providers():
                    # Only a run shows that cuDNN is missing, or that the build has no code for the GPU.
                    self.run(empty_inputs(self.info))
                    return None
                problem = Problem("its libraries load, but ONNX Runtime does not use it", "")
            # ONNX Runtime's exceptions have no common base below RuntimeError and Exception.
            except Exception as error:
                problem = providers.explain(error)
            vars(self).pop("_session", None)  # while the lock is held
        return problem

    def _load_on_cpu(self, num_threads: int) -> ort.InferenceSession:
        try:
            return self._create(False, providers.LOG_ERRORS, num_threads)
        except Exception as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise ModelError(
                f"ONNX Runtime {onnxruntime().__version__} cannot load {self.path} ({reason})",
                allowed="a whole .onnx file written by 'lightglue_ros export'",
                fix=f"copy the file again, or export it again: {export_command(self.path)}",
            ) from error

    def _create(self, cuda_graph: bool, log_level: int, num_threads: int) -> ort.InferenceSession:
        ort = onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = num_threads
        spins = self._spins_long or not providers.onnxruntime_is_older_than(_SPINS_SHORTLY_SINCE)
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spins else "0")
        if spins and not self._spins_long:
            options.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN_MICROSECONDS)
        options.inter_op_num_threads = 1
        # The last level of rewriting a graph aborts on CUDA with fp16 and free shapes.
        aborts = self.provider == "cuda" and self.info.precision == "fp16" and not self.info.is_static
        levels = ort.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_ENABLE_EXTENDED if aborts else levels.ORT_ENABLE_ALL
        options.log_severity_level = log_level
        for key, value in _CPU_SETTINGS.items():
            options.add_session_config_entry(key, value)
        chosen = providers.provider_options(self.provider, self.info, cuda_graph, self._gpu_memory_limit)
        with restored_floating_point():
            # Its own fallback would open the session on the CPU, also in the middle of a run, without a word.
            return ort.InferenceSession(str(self.path), options, providers=chosen, enable_fallback=0)


def _run_graph(
    session: ort.InferenceSession, names: Sequence[str], options: ort.RunOptions, inputs: Tensors
) -> dict[str, np.ndarray]:
    with flushed_denormals():
        values = session.run(list(names), dict(inputs), options)
    return dict(zip(names, values, strict=True))
