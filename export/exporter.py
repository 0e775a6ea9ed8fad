"""Export of a model to ONNX: weights in, checked files of the contract out."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import onnx
import onnx.inliner
import torch
from torch import Tensor, nn
from torch.export import Dim

from lightglue_ros.core import store
from lightglue_ros.core.contract import EXTRACTOR, INPUTS, MATCHER, OUTPUTS, PIPELINE, GraphInfo
from lightglue_ros.core.errors import ConfigError, ModelError
from lightglue_ros.export import selfcheck
from lightglue_ros.export.graphs import ExtractorGraph, MatcherGraph, PipelineGraph
from lightglue_ros.export.lightglue import LightGlue
from lightglue_ros.export.registry import Extractor, ModelSpec, find_spec
from lightglue_ros.export.weights import LocalFile, PinnedFile, resolve

DEFAULT_MAX_KEYPOINTS = 1024
OPSET = 18  # what PyTorch's exporter writes without converting, from 2.6 on
MIN_ONNXRUNTIME = "1.20"
# The leading axes of each tensor whose length is free; all others are fixed.
DYNAMIC_AXES = {
    "images": "NHW",
    "sizes": "N",
    "scales": "N",
    "valid": "N",
    "image_sizes": "N",
    "pairs": "P",
    "max_keypoints": "",
    "match_threshold": "",
    "keypoints": "N",
    "keypoint_scores": "N",
    "keypoint_mask": "N",
    "descriptors": "N",
    "matches": "P",
    "match_scores": "P",
    "layers": "P",
}
LARGEST_DIM = 2**16  # of N, P and the canvas in units of its divisor; a bound that the tracer wants


def export_model(
    name: str,
    *,
    split: bool = False,
    max_keypoints: int = DEFAULT_MAX_KEYPOINTS,
    output: str | os.PathLike[str] | None = None,
    weights: Sequence[str | os.PathLike[str]] = (),
    report: Callable[[str], None] = print,
) -> list[Path]:
    """Export a model and check the files against PyTorch before they get their final names.

    Args:
        name: a model of the registry, such as ``xfeat``.
        split: extractor.onnx and matcher.onnx instead of pipeline.onnx.
        max_keypoints: K, the number of keypoint slots per image.
        output: the folder to write to; by default the model's folder in the store.
        weights: paths of weights to use instead of downloading the published ones.
        report: receives one line for each step.

    Returns:
        The files written.

    Raises:
        ConfigError: K is not a positive number.
        ModelError: the model is unknown, its weights cannot be had or do not fit, or an exported file
            does not compute what PyTorch does. No file is left behind then.
    """
    spec = find_spec(name)
    if max_keypoints < 1:
        raise ConfigError(f"max_keypoints is {max_keypoints}", allowed="1 or more")
    files = resolve(spec.weights, weights, report)
    networks = load_networks(spec, files)
    info = _describe(spec, files, max_keypoints)
    folder = Path(output).expanduser() if output else store.models_dir() / stored_name(name, max_keypoints)
    folder.mkdir(parents=True, exist_ok=True)
    report(f"{spec.name}: weights {', '.join(file.path.name for file in files)} ({info[EXTRACTOR].licence})")

    modules = _graphs(*networks, max_keypoints, split=split)
    scenes = selfcheck.find_scenes(report)
    with _staged(folder, modules) as staged:
        for graph, module in modules.items():
            started = time.monotonic()
            _write(graph, module, info[graph], staged[graph])
            report(f"exported {graph}.onnx in {time.monotonic() - started:.0f} s, K = {max_keypoints}")
        for line in selfcheck.check(staged, modules, scenes):
            report(line)
        written = [folder / f"{graph}.onnx" for graph in modules]
        for graph, path in zip(modules, written, strict=True):
            os.replace(staged[graph], path)
            report(f"wrote {path} ({path.stat().st_size / 2**20:.1f} MiB)")
    return written


def stored_name(name: str, max_keypoints: int) -> str:
    """The name of an export in the model store: the model's, and what differs from the defaults."""
    return name if max_keypoints == DEFAULT_MAX_KEYPOINTS else f"{name}-k{max_keypoints}"


def load_networks(spec: ModelSpec, files: Sequence[LocalFile]) -> tuple[Extractor, LightGlue]:
    """The extractor and the matcher in PyTorch with the given weights, extractor first.

    Raises:
        ModelError: a file is not a state dict, or does not fit the model.
    """
    extractor_file, matcher_file = files[0].path, files[-1].path
    try:
        extractor = spec.build_extractor(_read_state_dict(extractor_file))
    except (KeyError, RuntimeError) as error:
        raise _do_not_fit(extractor_file, spec, error) from error
    matcher_weights = {
        key.removeprefix(spec.matcher_prefix): value
        for key, value in _read_state_dict(matcher_file).items()
        if key.startswith(spec.matcher_prefix)
    }
    try:
        matcher = LightGlue.from_state_dict(spec.matcher, matcher_weights)
    except (KeyError, RuntimeError) as error:
        raise _do_not_fit(matcher_file, spec, error) from error
    return extractor, matcher


def _read_state_dict(path: Path) -> Mapping[str, Tensor]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ModelError(
            f"weights {path} cannot be read: {_first_line(error)}",
            allowed="a state dict saved by PyTorch",
        ) from error


def _do_not_fit(path: Path, spec: ModelSpec, error: Exception) -> ModelError:
    return ModelError(
        f"weights {path} do not fit {spec.name}: {' '.join(str(error).split())[:300]}",
        allowed=f"a state dict with the tensors of {', '.join(file.name for file in spec.weights)}",
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _describe(spec: ModelSpec, files: Sequence[LocalFile], max_keypoints: int) -> dict[str, GraphInfo]:
    published = tuple(file.sha256 for file in spec.weights if isinstance(file, PinnedFile))
    checksums = tuple(file.sha256 for file in files)
    return {
        graph: GraphInfo(
            graph=graph,
            model=spec.name,
            extractor=spec.extractor,
            max_keypoints=max_keypoints,
            channels=spec.channels,
            image_size=None,
            divisor=spec.divisor,
            precision="fp32",
            adaptive=False,
            descriptor_dim=spec.matcher.input_dim,
            weights_sha256=checksums,
            licence=spec.licence if checksums == published else "unknown (weights of your own)",
            min_onnxruntime=MIN_ONNXRUNTIME,
        )
        for graph in (EXTRACTOR, MATCHER, PIPELINE)
    }


def _graphs(
    extractor: Extractor, matcher: LightGlue, max_keypoints: int, *, split: bool
) -> dict[str, nn.Module]:
    extractor_graph = ExtractorGraph(extractor, max_keypoints).eval()
    if split:
        return {EXTRACTOR: extractor_graph, MATCHER: MatcherGraph(matcher).eval()}
    return {PIPELINE: PipelineGraph(extractor_graph, matcher).eval()}


@contextlib.contextmanager
def _staged(folder: Path, graphs: Mapping[str, nn.Module]) -> Iterator[dict[str, Path]]:
    """Temporary files in the target folder, removed in the end where they were not given another name."""
    staged = {graph: folder / f".{graph}.{os.getpid()}.onnx" for graph in graphs}
    try:
        yield staged
    finally:
        for path in staged.values():
            path.unlink(missing_ok=True)


def _write(graph: str, module: nn.Module, info: GraphInfo, path: Path) -> None:
    # Traced for 2 and more, because PyTorch before 2.7 refuses to promise 0 and 1; the files take those too.
    dims = {name: Dim(name, min=2, max=LARGEST_DIM) for name in ("N", "P", "H", "W")}
    dims |= {name: info.divisor * dims[name] for name in ("H", "W")}
    example = _example_inputs(info)
    inputs = INPUTS[graph]
    try:
        with _silence():
            torch.onnx.export(
                module,
                tuple(example[name] for name in inputs),
                str(path),
                input_names=list(inputs),
                output_names=list(OUTPUTS[graph]),
                dynamic_shapes=tuple(
                    {axis: dims[name] for axis, name in enumerate(DYNAMIC_AXES[tensor])} for tensor in inputs
                ),
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:
        raise ModelError(
            f"PyTorch {torch.__version__} cannot export {graph}: {_first_line(error)}",
            fix="pip install 'torch==2.13.*' 'onnxscript>=0.6'",
        ) from error
    # PyTorch 2.6 wraps some operators in functions of its own domain.
    model = onnx.inliner.inline_local_functions(onnx.load(path))
    _tidy(model, info)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def _example_inputs(info: GraphInfo) -> dict[str, Tensor]:
    """Inputs to trace with: 3 images of a small canvas, 2 pairs."""
    side = 3 * info.divisor
    slots = info.max_keypoints
    return {
        "images": torch.zeros(3, side, side + info.divisor, info.channels, dtype=torch.uint8),
        "sizes": torch.full((3, 2), float(side)),
        "scales": torch.ones(3, 2),
        "valid": torch.ones(3, dtype=torch.bool),
        "image_sizes": torch.full((3, 2), float(side)),
        "pairs": torch.tensor([[0, 1], [1, 2]]),
        "max_keypoints": torch.tensor([slots]),
        "match_threshold": torch.tensor([0.1]),
        "keypoints": torch.zeros(3, slots, 2),
        "keypoint_scores": torch.zeros(3, slots),
        "keypoint_mask": torch.ones(3, slots, dtype=torch.bool),
        "descriptors": torch.zeros(3, slots, info.descriptor_dim),
    }


def _tidy(model: onnx.ModelProto, info: GraphInfo) -> None:
    """Write the metadata; name the axes; drop what the tracer noted about this machine's source files."""
    onnx.helper.set_model_props(model, info.to_metadata())
    del model.graph.value_info[:]
    model.graph.ClearField("metadata_props")
    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for value in (*model.graph.input, *model.graph.output):
        value.ClearField("metadata_props")
        for axis, name in enumerate(DYNAMIC_AXES[value.name]):
            value.type.tensor_type.shape.dim[axis].dim_param = name


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporter's notes on optional packages and deprecations from the user."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
