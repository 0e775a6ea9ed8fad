"""What all steps share: the pack, its exports and references, outcomes of checks, and sessions for timing."""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np

from lightglue_ros.core import MatchPipeline, providers
from lightglue_ros.core.contract import EXTRACTOR, GraphInfo, empty_inputs
from lightglue_ros.core.onnx_metadata import read_metadata

IMAGE_SIZE = 640, 480
ORDER = ("xfeat", "aliked", "disk")
TYPES = {
    "tensor(bool)": np.bool_,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}
Tensors = dict[str, np.ndarray]
NO_EXPORT: Any = SimpleNamespace(graph="")  # for the provider options of other files


@dataclass(frozen=True)
class Outcome:
    """Result of a check.

    Attributes:
        ok: True or False for a check that can fail, None for a measurement.
        figures: what was seen.
    """

    ok: bool | None = None
    figures: dict[str, Any] = field(default_factory=dict)


Check = Callable[[], Outcome]
Checks = Iterator[tuple[str, Check]]


@dataclass(frozen=True)
class Export:
    """A split model of the pack."""

    folder: Path

    @property
    def name(self) -> str:
        """Name of its folder."""
        return self.folder.name

    @cached_property
    def info(self) -> GraphInfo:
        """Metadata of the extractor."""
        path = self.file(EXTRACTOR)
        return GraphInfo.from_metadata(read_metadata(path), str(path))

    def file(self, graph: str) -> Path:
        """Return the file of a graph."""
        return self.folder / f"{graph}.onnx"

    def reference(self, provider: str) -> Path:
        """File of what the model's fp32 export found on the CPU, on a canvas of the same size.

        With free shapes a CPU runs on the part of the canvas that the images need, a GPU on all of it.
        """
        shapes = "static" if self.info.is_static or provider != "cpu" else "dynamic"
        return self.folder.parents[1] / "references" / f"{self.info.model}-{shapes}.npz"


@dataclass(frozen=True)
class Job:
    """What to run, and with what.

    Attributes:
        pack: folder with models, references and images, see bench/gpu_pack.py.
        provider: ``cuda``, or another one to try the program.
        frames: frames of the longest check; others run a part of them.
        models: names of exports; none is all.
    """

    pack: Path
    provider: str
    frames: int
    models: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Decode the job of a step's process."""
        values = json.loads(text)
        return cls(Path(values["pack"]), values["provider"], values["frames"], tuple(values["models"]))

    def exports(self, *, static: bool | None = None, precision: str = "") -> list[Export]:
        """List the exports, most valuable first, of all shapes and precisions or of some."""
        found = [Export(path.parent) for path in (self.pack / "models").glob("*/extractor.onnx")]

        def is_wanted(export: Export) -> bool:
            return (
                (not self.models or export.name in self.models)
                and static in (None, export.info.is_static)
                and precision in ("", export.info.precision)
            )

        def rank(export: Export) -> tuple[Any, ...]:
            info = export.info
            place = ORDER.index(info.model) if info.model in ORDER else len(ORDER)
            return place, not info.is_static, info.precision != "fp32", export.name

        return sorted(filter(is_wanted, found), key=rank)

    @cached_property
    def images(self) -> list[np.ndarray]:
        """The pack's images, uint8 [H, W, 3] RGB, in the order of their names."""
        paths = sorted((self.pack / "images").glob("*.png"))
        return [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in paths]

    def pipeline(self, export: Export, *, cuda_graph: bool = False, warm_up: bool = True) -> MatchPipeline:
        """Load an export on the provider, without refinement, which runs on the CPU; and run it once."""
        pipeline = MatchPipeline(
            export.folder,
            self.provider,
            IMAGE_SIZE,
            refine="none",
            cuda_graph=cuda_graph and export.info.is_static,
        )
        if warm_up:
            pipeline.warm_up()
        return pipeline

    def part(self, share: float, least: int = 2) -> int:
        """Return a share of the frames."""
        return max(least, int(share * self.frames))


def inputs_of(export: Export, graph: str, images: int = 2, pairs: int = 1) -> Tensors:
    """Make inputs of a graph: random images, or features of random images; N and P if they are free."""
    info = export.info
    count, width = info.batch or images, info.descriptor_dim
    random = np.random.default_rng(0)
    shape = count, info.max_keypoints
    size = np.full((count, 2), IMAGE_SIZE, np.float32)
    descriptors = random.standard_normal((*shape, width)).astype(np.float32)
    tensors = {
        "images": random.integers(0, 256, (count, *IMAGE_SIZE[::-1], info.channels or 1), np.uint8),
        "sizes": size,
        "scales": np.ones((count, 2), np.float32),
        "valid": np.ones(count, bool),
        "masks": np.ones((count, *IMAGE_SIZE[::-1]), bool),
        "max_keypoints": np.array([info.max_keypoints], np.int64),
        "keypoints": (random.uniform(0, 1, (*shape, 2)) * IMAGE_SIZE).astype(np.float32),
        "keypoint_scores": np.sort(random.uniform(0.1, 1, shape).astype(np.float32))[:, ::-1].copy(),
        "keypoint_mask": np.ones(shape, bool),
        "descriptors": descriptors / np.linalg.norm(descriptors, axis=-1, keepdims=True),
        "image_sizes": size,
        "pairs": np.tile(np.array([[0, count - 1]], np.int64), (info.pairs or pairs, 1)),
        "match_threshold": np.array([0.1], np.float32),
    }
    path = export.file(graph)
    wanted = empty_inputs(GraphInfo.from_metadata(read_metadata(path), str(path)))
    return {name: tensors[name] for name in wanted}


def preload_cuda() -> None:
    """Load CUDA and cuDNN from NVIDIA's Python packages; what is missing shows when a session opens."""
    ort = providers.onnxruntime()
    if hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()


def has_torch_on_gpu() -> bool:
    """Tell whether a PyTorch that uses the GPU is here."""
    try:
        import torch
    except ModuleNotFoundError:
        return False
    return torch.cuda.is_available()


def raw_session(
    job: Job,
    path: Path,
    *,
    cuda_graph: bool = False,
    provider_options: Mapping[str, str] | None = None,
    profile: Path | None = None,
    log: bool = False,
) -> Any:
    """Open a session of ONNX Runtime itself, with the package's provider options and changes to them."""
    ort = providers.onnxruntime()
    preload_cuda()
    options = ort.SessionOptions()
    options.log_severity_level = options.log_verbosity_level = 0 if log else 3
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    metadata = read_metadata(path)
    info = GraphInfo.from_metadata(metadata, str(path)) if metadata else NO_EXPORT
    chosen = providers.provider_options(job.provider, info, cuda_graph)
    if job.provider != "cpu":
        chosen[0][1].update(provider_options or {})
    return ort.InferenceSession(str(path), options, providers=chosen, enable_fallback=0)


class OnDevice:
    """A session whose inputs lie on the device before it runs, and whose outputs stay there."""

    def __init__(self, job: Job, session: Any, inputs: Tensors) -> None:
        device = "cpu" if job.provider == "cpu" else "cuda"
        ort = providers.onnxruntime()
        self._session = session
        self._binding = session.io_binding()
        wanted = {it.name for it in session.get_inputs()}
        self._values = {
            name: ort.OrtValue.ortvalue_from_numpy(value, device)
            for name, value in inputs.items()
            if name in wanted
        }
        for name, value in self._values.items():
            self._binding.bind_ortvalue_input(name, value)
        for output in session.get_outputs():
            if all(isinstance(length, int) for length in output.shape):
                # A CUDA graph writes to the addresses that its outputs had when it was recorded.
                kind = TYPES[output.type]
                value = ort.OrtValue.ortvalue_from_shape_and_type(output.shape, kind, device)
                self._binding.bind_ortvalue_output(output.name, value)
            else:
                self._binding.bind_output(output.name, device)

    def __call__(self) -> None:
        """Run, and wait until the device is done."""
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()

    def outputs(self) -> list[np.ndarray]:
        """Copy the outputs of the last run to the host."""
        return self._binding.copy_outputs_to_cpu()


def median_ms(work: Callable[[], object], runs: int, warm_up: int = 3) -> dict[str, float]:
    """Median, and the time that 99% of the runs stay below, in milliseconds."""
    for _ in range(warm_up):
        work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - start))
    return {"median_ms": float(np.median(times)), "p99_ms": float(np.quantile(times, 0.99))}
