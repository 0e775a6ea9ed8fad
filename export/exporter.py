"""Export of a model to ONNX: weights in, checked files of the contract out."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import onnx.inliner
import torch
from torch import Tensor, nn
from torch.export import Dim

from lightglue_ros.core import store
from lightglue_ros.core.contract import EXTRACTOR, INPUTS, MATCHER, OUTPUTS, PIPELINE, GraphInfo
from lightglue_ros.core.session import onnxruntime, onnxruntime_is_older_than
from lightglue_ros.errors import ModelError
from lightglue_ros.export import selfcheck, tensorrt
from lightglue_ros.export.assembly import assemble
from lightglue_ros.export.graphs import CompactMatcher, ExtractorGraph, MatcherGraph, PipelineGraph, parts_of
from lightglue_ros.export.models.adaptive import AdaptiveLightGlue
from lightglue_ros.export.models.lightglue import LightGlue
from lightglue_ros.export.operators import onnx_forms
from lightglue_ros.export.options import ExportOptions
from lightglue_ros.export.precision.fp16 import to_fp16
from lightglue_ros.export.precision.int8 import to_int8
from lightglue_ros.export.precision.int8_convolutions import to_int8_extractor
from lightglue_ros.export.registry import Extractor, ModelSpec, find_spec
from lightglue_ros.export.weights import LocalFile, PinnedFile, resolve

# What PyTorch's exporter writes without converting, from 2.6 on, and what DeformConv needs.
PORTABLE_OPSET = 18
DEFORM_CONV_OPSET = 19
MIN_ONNXRUNTIME = "1.20"
MIN_ONNXRUNTIME_OF_OPSET = {22: "1.21", 23: "1.23"}
MIN_ONNXRUNTIME_WITH_DEFORM_CONV = "1.25"
# The leading axes of each tensor whose length is free; all others are fixed.
DYNAMIC_AXES = {
    "images": "NHWC",
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
    output: str | os.PathLike[str] | None = None,
    weights: Sequence[str | os.PathLike[str]] = (),
    report: Callable[[str], None] = print,
    **options: Any,
) -> list[Path]:
    """Export a model and check the files against PyTorch before they get their final names.

    Args:
        name: a model of the registry, such as ``xfeat``.
        output: the folder to write to; by default the model's folder in the store.
        weights: paths of weights to use instead of downloading the published ones.
        report: receives one line for each step.
        options: see `ExportOptions`; without any, a dynamic pipeline.onnx of 1024 keypoints in fp32.

    Returns:
        The files written.

    Raises:
        ConfigError: the options do not fit the model or each other.
        ModelError: the model is unknown, its weights cannot be had or do not fit, or an exported file
            does not compute what PyTorch does. No file is left behind then.
    """
    spec = find_spec(name)
    wanted = ExportOptions(**options)
    settled, deform_conv = _settle(wanted, spec, report)
    files = resolve(spec.weights, weights, report)
    networks = load_networks(spec, files, settled, deform_conv=deform_conv)
    info = _describe(spec, files, settled)
    folder = Path(output).expanduser() if output else store.models_dir() / stored_name(name, wanted)
    folder.mkdir(parents=True, exist_ok=True)
    report(f"{spec.name}: weights {', '.join(file.path.name for file in files)} ({info.licence})")

    scenes = selfcheck.find_scenes(report)
    modules = _graphs(*networks, settled)
    rounded = _graphs(*_rounded(networks, settled, scenes, info), settled)
    with _staged(folder, modules) as staged:
        for graph, module in rounded.items():
            report(f"exporting {graph}.onnx: {_summary(info)}, opset {settled.opset}")
            started = time.monotonic()
            _write(module, replace(info, graph=graph), settled.opset, staged[graph])
            report(f"exported {graph}.onnx in {time.monotonic() - started:.0f} s")
        for line in selfcheck.check(staged, modules, scenes):
            report(line)
        written = [folder / f"{graph}.onnx" for graph in modules]
        for graph, path in zip(modules, written, strict=True):
            os.replace(staged[graph], path)
            report(f"wrote {path} ({path.stat().st_size / 2**20:.1f} MiB)")
    return written


def stored_name(name: str, options: ExportOptions) -> str:
    """The name of an export in the model store: the model's, and what differs from the defaults."""
    return "-".join([name, *options.suffixes()])


def _settle(
    options: ExportOptions, spec: ModelSpec, report: Callable[[str], None]
) -> tuple[ExportOptions, bool]:
    """The options checked against the model, with nothing left to decide, and whether DeformConv is used."""
    options = options.settle(spec)
    deform_conv = spec.build_portable_extractor is not None and not options.portable
    if deform_conv and onnxruntime_is_older_than(MIN_ONNXRUNTIME_WITH_DEFORM_CONV):
        report(
            f"ONNX Runtime {onnxruntime().__version__} has no DeformConv (that takes "
            f"{MIN_ONNXRUNTIME_WITH_DEFORM_CONV}): exporting the extractor without it"
        )
        deform_conv = False
    least = DEFORM_CONV_OPSET if deform_conv else PORTABLE_OPSET
    return replace(options, opset=max(options.opset or least, least)), deform_conv


def load_networks(
    spec: ModelSpec, files: Sequence[LocalFile], options: ExportOptions, *, deform_conv: bool = False
) -> tuple[Extractor, LightGlue]:
    """The extractor and the matcher in PyTorch with the given weights, extractor first.

    Args:
        spec: the model.
        files: its weights, extractor first.
        options: settled for the model.
        deform_conv: whether the extractor may have DeformConv.

    Raises:
        ModelError: a file is not a state dict, or does not fit the model.
    """
    extractor_file, matcher_file = files[0].path, files[-1].path
    build = spec.build_extractor if deform_conv else spec.build_portable_extractor or spec.build_extractor
    try:
        extractor = build(_read_state_dict(extractor_file))
    except (KeyError, RuntimeError) as error:
        raise _do_not_fit(extractor_file, spec, error) from error
    matcher_weights = {
        key.removeprefix(spec.matcher_prefix): value
        for key, value in _read_state_dict(matcher_file).items()
        if key.startswith(spec.matcher_prefix)
    }
    try:
        kind = AdaptiveLightGlue if options.adaptive else LightGlue
        matcher = kind.from_state_dict(options.matcher_config(spec), matcher_weights)
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


def _describe(spec: ModelSpec, files: Sequence[LocalFile], options: ExportOptions) -> GraphInfo:
    """The metadata of all graphs of an export, but for the graph's own name and TensorRT."""
    published = tuple(file.sha256 for file in spec.weights if isinstance(file, PinnedFile))
    checksums = tuple(file.sha256 for file in files)
    return GraphInfo(
        graph="",
        model=spec.name,
        extractor=spec.extractor,
        max_keypoints=options.max_keypoints,
        channels=options.channels,
        image_size=options.image_size,
        batch=options.batch,
        pairs=options.pairs,
        divisor=spec.divisor,
        precision=options.precision,
        compaction=options.compaction,
        fused=options.is_fused,
        adaptive=options.adaptive,
        depth_confidence=options.depth_confidence,
        width_confidence=options.width_confidence,
        descriptor_dim=spec.matcher.input_dim,
        weights_sha256=checksums,
        licence=spec.licence if checksums == published else "unknown (weights of your own)",
        tensorrt=False,
        min_onnxruntime=MIN_ONNXRUNTIME,
    )


def _summary(info: GraphInfo) -> str:
    shape = "free shapes"
    if info.image_size is not None:
        width, height = info.image_size
        shape = f"{info.batch} images of {width}x{height}x{info.channels}, {info.pairs} pairs"
    return f"K = {info.max_keypoints}, {info.precision}, {shape}"


def _graphs(extractor: Extractor, matcher: LightGlue, options: ExportOptions) -> dict[str, nn.Module]:
    extractor_graph = ExtractorGraph(extractor, options.max_keypoints).eval()
    used = CompactMatcher(matcher) if options.compaction and not options.adaptive else matcher
    if options.split:
        return {EXTRACTOR: extractor_graph, MATCHER: MatcherGraph(used).eval()}
    return {PIPELINE: PipelineGraph(extractor_graph, used).eval()}


def _rounded(
    networks: tuple[Extractor, LightGlue],
    options: ExportOptions,
    scenes: Sequence[selfcheck.Scene],
    info: GraphInfo,
) -> tuple[Extractor, LightGlue]:
    """The networks in the precision that is wanted."""
    extractor, matcher = networks
    if options.precision == "fp16":
        return to_fp16(extractor), to_fp16(matcher)
    if options.precision == "int8":
        graph = ExtractorGraph(extractor, options.max_keypoints).eval()
        seen: list[tuple[Tensor, ...]] = []

        def run() -> None:
            seen.extend(selfcheck.features(graph, scene, info) for scene in scenes)

        return to_int8_extractor(extractor, run), to_int8(matcher, seen)
    return networks


@contextlib.contextmanager
def _staged(folder: Path, graphs: Mapping[str, nn.Module]) -> Iterator[dict[str, Path]]:
    """Temporary files in the target folder, removed in the end where they were not given another name."""
    staged = {graph: folder / f".{graph}.{os.getpid()}.onnx" for graph in graphs}
    try:
        yield staged
    finally:
        for path in staged.values():
            path.unlink(missing_ok=True)


def _write(module: nn.Module, info: GraphInfo, opset: int, path: Path) -> None:
    model = _traced(module, info, opset)
    _tidy(model, info)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def _traced(module: nn.Module, info: GraphInfo, opset: int) -> onnx.ModelProto:
    inputs, outputs = INPUTS[info.graph], OUTPUTS[info.graph]

    def trace(
        module: nn.Module, examples: Mapping[str, Tensor], free: Any, output_names: Sequence[str]
    ) -> onnx.ModelProto:
        program = torch.onnx.export(
            module.eval(),
            tuple(examples.values()),
            input_names=list(examples),
            output_names=list(output_names),
            dynamic_shapes=free,
            opset_version=opset,
            custom_translation_table=onnx_forms(fused=info.fused),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        # PyTorch 2.6 wraps some operators in functions of its own domain.
        return onnx.inliner.inline_local_functions(program.model_proto)

    try:
        with _silence():
            if info.adaptive and info.graph != EXTRACTOR:
                parts = parts_of(module, info.max_keypoints, info.divisor)
                return assemble(parts, inputs, outputs, trace)
            example = _example_inputs(info)
            free = None if info.is_static else _free_axes(inputs, info.divisor)
            model = trace(module, {name: example[name] for name in inputs}, free, outputs)
    except Exception as error:
        raise ModelError(
            f"PyTorch {torch.__version__} cannot export {info.graph}: {_first_line(error)}",
            fix="pip install 'torch==2.13.*' 'onnxscript>=0.6'",
        ) from error
    return model


def _free_axes(inputs: Sequence[str], divisor: int) -> tuple[dict[int, Any], ...]:
    # Traced for 2 and more, because PyTorch before 2.7 refuses to promise 0 and 1; the files take those too.
    dims = {name: Dim(name, min=2, max=LARGEST_DIM) for name in "NPHWC"}
    dims |= {name: divisor * dims[name] for name in "HW"}
    return tuple({axis: dims[name] for axis, name in enumerate(DYNAMIC_AXES[tensor])} for tensor in inputs)


def _example_inputs(info: GraphInfo) -> dict[str, Tensor]:
    """Inputs to trace with: of the shapes of a static export, else 3 images of a small canvas and 2 pairs."""
    side = 3 * info.divisor
    width, height = info.image_size or (side + info.divisor, side)
    batch, pairs, channels = info.batch or 3, info.pairs or 2, info.channels or 3
    slots = info.max_keypoints
    return {
        "images": torch.zeros(batch, height, width, channels, dtype=torch.uint8),
        "sizes": torch.full((batch, 2), float(side)),
        "scales": torch.ones(batch, 2),
        "valid": torch.ones(batch, dtype=torch.bool),
        "image_sizes": torch.full((batch, 2), float(side)),
        "pairs": torch.zeros(pairs, 2, dtype=torch.int64),
        "max_keypoints": torch.tensor([slots]),
        "match_threshold": torch.tensor([0.1]),
        "keypoints": torch.zeros(batch, slots, 2),
        "keypoint_scores": torch.zeros(batch, slots),
        "keypoint_mask": torch.ones(batch, slots, dtype=torch.bool),
        "descriptors": torch.zeros(batch, slots, info.descriptor_dim),
    }


def _tidy(model: onnx.ModelProto, info: GraphInfo) -> None:
    """Write the metadata, name the free axes, drop the tracer's notes on this machine's source files."""
    (opset,) = (entry.version for entry in model.opset_import if not entry.domain)
    operators = {node.op_type for node in model.graph.node}
    has_deform_conv = "DeformConv" in operators
    minimum = MIN_ONNXRUNTIME_OF_OPSET.get(opset, MIN_ONNXRUNTIME)
    info = replace(
        info,
        # TensorRT 10 lists DeformConv; what runs on older Jetsons does not, and it was not tried on any.
        tensorrt=info.is_static and not has_deform_conv and not tensorrt.find_obstacles(model),
        min_onnxruntime=MIN_ONNXRUNTIME_WITH_DEFORM_CONV if has_deform_conv else minimum,
    )
    onnx.helper.set_model_props(model, info.to_metadata())
    del model.graph.value_info[:]
    model.graph.ClearField("metadata_props")
    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for value in (*model.graph.input, *model.graph.output):
        value.ClearField("metadata_props")
        if not info.is_static:
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
