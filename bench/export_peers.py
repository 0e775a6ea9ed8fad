"""Exports of LightGlue-ONNX (fabio-sim) to compare with, from a checkout of it and the weights in our store.

    . tools/env.sh
    lightglue_ros export disk --split          (brings the weights)
    python bench/export_peers.py ../LightGlue-ONNX disk --keypoints 512 1024 2048 -o /tmp/peers

Writes for each K `disk_plain_kK.onnx`, its matcher with the options of its command line, for one pair;
`disk_fused_kK.onnx`, the same with ONNX Runtime's MultiHeadAttention, as its version 2.0 could have it; and
`disk_adaptive_kK.onnx`, which stops early. With --image-size also `disk_pipeline_kK.onnx`, images to matches.
Nothing of the checkout is changed. Tried with 3.0.0.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
from onnx.defs import OpSchema
from onnxscript import opset20
from onnxscript.values import Op, Opset
from torch import Tensor, nn

from lightglue_ros.core.store import weights_dir

OPSET = 20
DESCRIPTOR_DIM = 128
EXTRACTOR_WEIGHTS = {"disk": "disk-depth-save.pth"}
DEPTH_CONFIDENCE = 0.95  # what its `LightGlue` recommends, and the original's default
MODULES = ("lightglue_dynamo", "lightglue_dynamo.models", "lightglue_dynamo.models.disk")


def main() -> None:
    """Export and print the names of the files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkout", type=Path, help="folder with lightglue_dynamo/")
    parser.add_argument("model", choices=("disk", "aliked"), help="whose matcher")
    parser.add_argument("--keypoints", nargs="+", type=int, default=[1024], metavar="K")
    parser.add_argument("--image-size", type=int, nargs=2, help="of pipelines (DISK only), multiples of 16")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    if not (arguments.checkout / "lightglue_dynamo").is_dir():
        parser.error(f"no {arguments.checkout / 'lightglue_dynamo'}: git clone LightGlue-ONNX there")
    if arguments.image_size and arguments.model not in EXTRACTOR_WEIGHTS:
        parser.error(f"it has no extractor for {arguments.model}")
    arguments.output.mkdir(parents=True, exist_ok=True)
    import_without_packages(arguments.checkout)
    with torch.no_grad():
        for count in arguments.keypoints:
            for path in export(arguments.model, count, arguments.image_size, arguments.output):
                print(f"wrote {path}", flush=True)


def import_without_packages(checkout: Path) -> None:
    """Let its modules be imported singly, because its packages import extractors that need torchvision."""
    for name in MODULES:
        package = types.ModuleType(name)
        package.__path__ = [str(checkout.joinpath(*name.split(".")))]
        sys.modules[name] = package


def export(model: str, count: int, size: tuple[int, int] | None, folder: Path) -> Iterator[Path]:
    """Write the files for this number of keypoints."""
    lightglue = importlib.import_module("lightglue_dynamo.models.lightglue")
    weights = weights_dir() / f"{model}_lightglue.pth"
    matcher = lightglue.LightGlue(weights, input_dim=DESCRIPTOR_DIM).eval()
    features = torch.rand(2, count, 2) * 2 - 1, torch.randn(2, count, DESCRIPTOR_DIM)
    names = {"input_names": ["keypoints", "descriptors"], "output_names": ["matches", "mscores"]}

    path = folder / f"{model}_plain_k{count}.onnx"
    write(matcher, features, path, **names)
    yield path

    path = folder / f"{model}_fused_k{count}.onnx"
    with patch.object(lightglue, "multi_head_attention", torch.ops.lightglue_ros_bench.attend):
        forms = {torch.ops.lightglue_ros_bench.attend.default: _onnx_attend}
        write(matcher, features, path, custom_translation_table=forms, **names)
    yield path

    path = folder / f"{model}_adaptive_k{count}.onnx"
    adaptive_depth = importlib.import_module("lightglue_dynamo.adaptive_depth")
    adaptive = lightglue.LightGlue(
        weights, input_dim=DESCRIPTOR_DIM, depth_confidence=DEPTH_CONFIDENCE
    ).eval()
    write(adaptive, features, path, **names)
    adaptive_depth._nest_natural_early_exits(path, adaptive.n_layers)
    adaptive_depth._prepare_control_flow_onnx_for_tensorrt(path)
    yield path

    if size:
        path = folder / f"{model}_pipeline_k{count}.onnx"
        width, height = size
        pipeline = importlib.import_module("lightglue_dynamo.models.pipeline").Pipeline
        with local_weights(weights_dir() / EXTRACTOR_WEIGHTS[model]):
            extractor = importlib.import_module("lightglue_dynamo.models.disk.disk").DISK(num_keypoints=count)
        write(
            pipeline(extractor, matcher).eval(),
            (torch.zeros(2, 3, height, width),),
            path,
            input_names=["images"],
            output_names=["keypoints", "matches", "mscores"],
            custom_translation_table={torch.ops.aten.div.Tensor_mode: _onnx_whole_division},
        )
        yield path


def write(module: nn.Module, inputs: tuple[Tensor, ...], path: Path, **options: object) -> None:
    """Export as LightGlue-ONNX's command line does."""
    torch.onnx.export(
        module,
        inputs,
        str(path),
        opset_version=OPSET,
        dynamo=True,
        external_data=False,
        optimize=False,
        verbose=False,
        **options,
    )


@contextmanager
def local_weights(path: Path) -> Iterator[None]:
    """Load weights from a file where LightGlue-ONNX would download them."""

    def load(url: str, **options: object) -> dict:
        return torch.load(path, **options)

    with patch.object(torch.hub, "load_state_dict_from_url", load):
        yield


@torch.library.custom_op("lightglue_ros_bench::attend", mutates_args=())
def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Attention of [S, K, heads * D]; only its form in ONNX is ever used."""
    return torch.empty_like(query)


@attend.register_fake
def _(query: Tensor, *_: object) -> Tensor:
    return torch.empty_like(query)


def _operator_of_onnxruntime(name: str, inputs: tuple[str, ...], attribute: str) -> Callable:
    schema = OpSchema(
        name,
        "com.microsoft",
        1,
        inputs=[OpSchema.FormalParameter(text, "T") for text in inputs],
        outputs=[OpSchema.FormalParameter("output", "T")],
        type_constraints=[("T", ["tensor(float)"], "")],
        attributes=[OpSchema.Attribute(attribute, OpSchema.AttrType.INT, "", required=True)],
    )
    return Op(Opset("com.microsoft", 1), name, schema)


_multi_head_attention = _operator_of_onnxruntime("MultiHeadAttention", ("query", "key", "value"), "num_heads")


def _onnx_attend(query: object, key: object, value: object, heads: int) -> object:
    return _multi_head_attention(query, key, value, num_heads=heads)


def _onnx_whole_division(dividend: object, divisor: object, rounding_mode: str | None = None) -> object:
    # As its command line has it: exact for the indices that it divides.
    return opset20.Div(dividend, divisor)


if __name__ == "__main__":
    main()
