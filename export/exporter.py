"""Export of a model to ONNX: from weights to checked files."""

from __future__ import annotations

import os
import pickle
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightglue_ros.core import store
from lightglue_ros.core.contract import EXTRACTOR, MATCHER, PIPELINE, GraphInfo
from lightglue_ros.core.providers import onnxruntime, onnxruntime_is_older_than
from lightglue_ros.errors import ModelError
from lightglue_ros.export import onnx_file, selfcheck
from lightglue_ros.export.graphs import (
    CompactMatcher,
    ExtractorGraph,
    Graph,
    MatcherGraph,
    NeverEmptyMatcher,
    PipelineGraph,
)
from lightglue_ros.export.models.adaptive import AdaptiveLightGlue
from lightglue_ros.export.models.extractor import Extractor
from lightglue_ros.export.models.lightglue import LightGlue
from lightglue_ros.export.onnx_file import MIN_ONNXRUNTIME_WITH_DEFORM_CONV, write_graph
from lightglue_ros.export.options import ExportOptions
from lightglue_ros.export.precision.calibration import CALIBRATION_KEYPOINTS, calibration_scenes
from lightglue_ros.export.precision.fp16 import to_fp16
from lightglue_ros.export.precision.int8_extractor import to_int8_extractor
from lightglue_ros.export.precision.int8_matcher import to_int8
from lightglue_ros.export.registry import ModelSpec, find_spec
from lightglue_ros.export.weights import LocalFile, PinnedFile, resolve

LOWEST_OPSET = 18  # PyTorch's exporter has written it without a conversion since 2.6
DEFORM_CONV_OPSET = 19
OPTIONS_IN_METADATA = tuple({f.name for f in fields(GraphInfo)} & {f.name for f in fields(ExportOptions)})

Networks = tuple[Extractor, LightGlue]


def export_model(
    name: str,
    *,
    output: str | os.PathLike[str] | None = None,
    weights: Sequence[str | os.PathLike[str]] = (),
    report: Callable[[str], None] = print,
    **options: Any,
) -> list[Path]:
    """Export a model, and check its files against PyTorch before they get their final names.

    Args:
        name: a model of the registry, such as ``xfeat``.
        output: the folder to write to; by default the model's folder in the store.
        weights: paths of weights to use instead of the published ones.
        report: receives one line for each step.
        options: see `ExportOptions`; by default a dynamic pipeline.onnx with 1024 keypoints in fp32.

    Returns:
        The files written.

    Raises:
        ConfigError: an option is invalid for the model, or in conflict with another option.
        ModelError: the model is unknown, its weights are missing or invalid, or an exported file computes
            something else than PyTorch. Then no file is left behind.
    """
    spec = find_spec(name)
    wanted = ExportOptions(**options)
    settled = wanted.settle(spec)
    deform_conv = uses_deform_conv(settled, spec, report)
    files = resolve(spec.weights, weights, report)
    networks = load_networks(spec, files, settled, deform_conv=deform_conv)
    info = describe(spec, files, settled)
    folder = Path(output).expanduser() if output else store.models_dir() / wanted.stored_name(name)
    folder.mkdir(parents=True, exist_ok=True)
    report(f"{spec.name}: weights {', '.join(file.path.name for file in files)} ({info.licence})")

    scenes = selfcheck.find_scenes(report)
    reference = build_graphs(networks, settled)
    calibration = calibration_scenes(scenes, report) if settled.precision == "int8" else []
    exported = build_graphs(to_precision(networks, settled, calibration, info), settled)
    with tempfile.TemporaryDirectory(prefix=".", dir=folder) as unchecked:
        temporary = {graph: Path(unchecked) / f"{graph}.onnx" for graph in exported}
        for graph, module in exported.items():
            opset = opset_of(graph, settled, deform_conv=deform_conv)
            report(f"exporting {graph}.onnx: {_summary(info)}, opset {opset}")
            started = time.monotonic()
            write_graph(module, replace(info, graph=graph), opset, temporary[graph])
            report(f"exported {graph}.onnx in {time.monotonic() - started:.0f} s")
        for line in selfcheck.check(temporary, reference, scenes):
            report(line)
        written = [folder / f"{graph}.onnx" for graph in exported]
        for graph, path in zip(exported, written, strict=True):
            os.replace(temporary[graph], path)
            report(f"wrote {path} ({path.stat().st_size / 2**20:.1f} MiB)")
    return written


def uses_deform_conv(options: ExportOptions, spec: ModelSpec, report: Callable[[str], None]) -> bool:
    """Decide whether the extractor has a DeformConv, for settled options."""
    if spec.build_portable_extractor is None or options.target == "portable":
        return False
    if options.opset is not None and options.opset < DEFORM_CONV_OPSET:
        return False
    if onnxruntime_is_older_than(MIN_ONNXRUNTIME_WITH_DEFORM_CONV):
        report(
            f"ONNX Runtime {onnxruntime().__version__} has no DeformConv "
            f"(added in {MIN_ONNXRUNTIME_WITH_DEFORM_CONV}): exporting the extractor without it"
        )
        return False
    return True


def opset_of(graph: str, options: ExportOptions, *, deform_conv: bool) -> int:
    """Return the version of a graph's operators: the option, or the lowest version that has them all.

    A matcher keeps the lowest: ONNX Runtime 1.23, the newest on JetPack 6, has no CUDA kernels for opset 19's
    Equal and Pad.
    """
    has_deform_conv = deform_conv and graph != MATCHER
    return options.opset or (DEFORM_CONV_OPSET if has_deform_conv else LOWEST_OPSET)


def load_networks(
    spec: ModelSpec, files: Sequence[LocalFile], options: ExportOptions, *, deform_conv: bool = False
) -> Networks:
    """Build the extractor and the matcher in PyTorch from weights files, for settled options.

    Raises:
        ModelError: a file is not a state dict, or lacks tensors of the model.
    """
    extractor_file, matcher_file = files[0].path, files[-1].path
    build = spec.build_extractor if deform_conv else spec.build_portable_extractor or spec.build_extractor
    with _weights_of(extractor_file, spec) as weights:
        extractor = build(weights)
    extractor.subpixel = options.subpixel
    with _weights_of(matcher_file, spec) as weights:
        prefix = spec.matcher_prefix
        own = {key.removeprefix(prefix): it for key, it in weights.items() if key.startswith(prefix)}
        kind = AdaptiveLightGlue if options.adaptive else LightGlue
        matcher = kind.from_state_dict(options.matcher_config(spec), own)
    return extractor, matcher


@contextmanager
def _weights_of(path: Path, spec: ModelSpec) -> Iterator[Mapping[str, Tensor]]:
    """Read a state dict; an error in the block means that it belongs to another model."""
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ModelError(
            f"weights {path} cannot be read: {onnx_file.first_line(error)}",
            allowed="a state dict saved by PyTorch",
        ) from error
    try:
        yield weights
    except (KeyError, RuntimeError) as error:
        raise ModelError(
            f"weights {path} are not weights of {spec.name}: {' '.join(str(error).split())[:300]}",
            allowed=f"a state dict with the tensors of {', '.join(file.name for file in spec.weights)}",
        ) from error


def describe(spec: ModelSpec, files: Sequence[LocalFile], options: ExportOptions) -> GraphInfo:
    """Return the metadata of an export; name, TensorRT and ONNX Runtime version of each graph come later."""
    published = tuple(file.sha256 for file in spec.weights if isinstance(file, PinnedFile))
    checksums = tuple(file.sha256 for file in files)
    return GraphInfo(
        graph="",
        model=spec.name,
        extractor=spec.extractor,
        divisor=spec.divisor,
        descriptor_dim=spec.matcher.input_dim,
        keypoint_reach=spec.keypoint_reach or int(options.subpixel),
        weights_sha256=checksums,
        licence=spec.licence if checksums == published else "unknown (weights of your own)",
        tensorrt=False,
        min_onnxruntime=onnx_file.MIN_ONNXRUNTIME,
        **{name: getattr(options, name) for name in OPTIONS_IN_METADATA},
    )


def _summary(info: GraphInfo) -> str:
    shape = "free shapes"
    if info.image_size is not None:
        width, height = info.image_size
        shape = f"{info.batch} images of {width}x{height}x{info.channels}, {info.pairs} pairs"
    return f"K = {info.max_keypoints}, {info.precision}, for {info.target}, {shape}"


def build_graphs(networks: Networks, options: ExportOptions) -> dict[str, Graph]:
    """Build the graphs of an export from its networks."""
    extractor, matcher = networks
    extractor_graph = ExtractorGraph(extractor, options.max_keypoints).eval()
    used: nn.Module = matcher
    if options.has_compaction and not options.adaptive:
        used = CompactMatcher(matcher)
    elif options.target == "gpu" and not options.is_static:
        used = NeverEmptyMatcher(matcher)
    if options.split:
        return {EXTRACTOR: extractor_graph, MATCHER: MatcherGraph(used).eval()}
    return {PIPELINE: PipelineGraph(extractor_graph, used).eval()}


def to_precision(
    networks: Networks, options: ExportOptions, scenes: Sequence[selfcheck.Scene], info: GraphInfo
) -> Networks:
    """Convert the networks to the precision of the options; int8 takes its scales from the scenes."""
    extractor, matcher = networks
    if options.precision == "fp16":
        return to_fp16(extractor), to_fp16(matcher)
    if options.precision == "int8":

        def extract(network: Extractor) -> list[tuple[torch.Tensor, ...]]:
            graph = ExtractorGraph(network, min(options.max_keypoints, CALIBRATION_KEYPOINTS)).eval()
            return [selfcheck.features(graph, scene, info) for scene in scenes]

        return to_int8_extractor(extractor, extract), to_int8(matcher, extract(extractor))
    return networks
