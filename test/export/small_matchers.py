"""LighterGlue's first layers as matchers of all options, exported by several processes at once."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import torch
from torch import nn

from lightglue_ros.export import MODELS, assembly, exporter, selfcheck
from lightglue_ros.export.options import ExportOptions
from lightglue_ros.export.registry import Extractor
from lightglue_ros.export.weights import resolve

LAYERS = 2  # what the first one leaves in padded slots the second would bring out
SPEC = replace(MODELS["xfeat"], matcher=replace(MODELS["xfeat"].matcher, layers=LAYERS))
OPSET = 18


def load(options: ExportOptions) -> tuple[Extractor, nn.Module]:
    """XFeat, and the graph of the matcher in PyTorch with these settled options."""
    files = resolve(SPEC.weights, [], lambda line: None)
    networks = exporter.load_networks(SPEC, files, options)
    info = exporter._describe(SPEC, [], options)
    rounded = exporter._rounded(networks, options, [selfcheck._random_scene()], info)
    return networks[0], exporter._graphs(*rounded, options)["matcher"]


def write(family: Sequence[ExportOptions], folder: Path) -> None:
    """Export matchers of settled options to folder/NAME.onnx, as `name` says.

    Args:
        family: of one precision, all fused or none, all adaptive or none. Of adaptive ones only the layers
            that judge know of the confidences: what is the same in all of a family is traced once.
        folder: to write to.
    """
    torch.set_num_threads(1)  # of as many processes as there are cores
    gc.disable()  # what PyTorch keeps of an export is looked through again and again otherwise
    traced = {}

    def trace_once(part, trace):
        key = part.name, part.traced_as and (options.depth_confidence, options.width_confidence)
        if key not in traced:
            traced[key] = trace_part(part, trace)
        return traced[key]

    trace_part = assembly._traced
    with patch.object(assembly, "_traced", trace_once):
        for options in family:
            _, module = load(options)
            info = replace(exporter._describe(SPEC, [], options), graph="matcher")
            exporter._write(module, info, OPSET, folder / f"{name(options)}.onnx")


def name(options: ExportOptions) -> str:
    """Of a file; options that make no difference to the matcher are not in it."""
    confidences = f"{options.depth_confidence}-{options.width_confidence}" * options.adaptive
    kinds = {
        options.precision: True,
        "fused": options.is_fused,
        "compaction": options.compaction,
        f"adaptive{confidences}": options.adaptive,
        "static": options.is_static,
    }
    return "-".join(kind for kind, is_so in kinds.items() if is_so)
