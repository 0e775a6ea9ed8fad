"""Exports made once for all tests of this folder, and small ones for what needs no more.

Weights that nobody has published, or that the tests may not have, are random ones (random_weights.py).
"""

import gc
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from random_weights import lightglue_weights, superpoint_weights

from lightglue_ros.core.canvas import Canvas
from lightglue_ros.core.session import GraphSession
from lightglue_ros.export import MODELS, export_model, exporter, selfcheck
from lightglue_ros.export.options import ExportOptions
from lightglue_ros.export.weights import resolve

SEED = 0  # of the random weights, and of make_goldens_superpoint.py


@dataclass(frozen=True)
class Export:
    """What `export_model` wrote and said."""

    files: list[Path]
    lines: list[str]


@pytest.fixture(scope="session")
def split_export(tmp_path_factory):
    """Extractor and matcher of xfeat with K = 1024."""
    lines = []
    files = export_model("xfeat", output=tmp_path_factory.mktemp("split"), split=True, report=lines.append)
    forget_garbage()
    return Export(files, lines)


@pytest.fixture(scope="session")
def pipeline_export(tmp_path_factory):
    """A pipeline of xfeat with K = 512, half of the other export's."""
    return export("xfeat", tmp_path_factory.mktemp("pipeline"), max_keypoints=512)


@pytest.fixture(scope="session")
def disk_export(tmp_path_factory):
    """Extractor and matcher of disk with K = 512, as more would take long."""
    return export("disk", tmp_path_factory.mktemp("disk"), split=True, max_keypoints=512)


@pytest.fixture(scope="session")
def aliked_export(tmp_path_factory):
    """Extractor and matcher of aliked with K = 512. The other ALIKEDs of 128 channels are the same code."""
    return export("aliked", tmp_path_factory.mktemp("aliked"), split=True, max_keypoints=512)


@pytest.fixture(scope="session")
def t16_export(tmp_path_factory, own_weights):
    """Extractor and matcher of aliked-t16 with K = 512, with a random LightGlue of two layers."""
    spec = with_layers("aliked-t16", 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, spec.name, spec)
        options = {"split": True, "max_keypoints": 512, "weights": own_weights(spec)}
        return export(spec.name, tmp_path_factory.mktemp(spec.name), **options)


@pytest.fixture(scope="session")
def superpoint_export(tmp_path_factory, own_weights):
    """Extractor and matcher of superpoint with K = 256 and random weights."""
    options = {"split": True, "max_keypoints": 256, "weights": own_weights(MODELS["superpoint"])}
    return export("superpoint", tmp_path_factory.mktemp("superpoint"), **options)


def export(name, folder, **options):
    """Checked on random images only: what the stereo pair gives is compared with the original's results."""
    lines = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selfcheck, "find_scenes", lambda report: [selfcheck._random_scene()])
        files = export_model(name, output=folder, report=lines.append, **options)
    forget_garbage()
    return Export(files, lines)


def forget_garbage():
    """Spare later collections what PyTorch keeps of an export: a second and more for each of them."""
    gc.collect()
    gc.freeze()


def with_layers(name, layers):
    """The model with so many of its matcher's layers."""
    spec = MODELS[name]
    return replace(spec, matcher=replace(spec.matcher, layers=layers))


@pytest.fixture(scope="session")
def own_weights(tmp_path_factory):
    """Makes the files of random weights that a model wants, extractor first; most want none."""

    def make(spec):
        folder = tmp_path_factory.mktemp("weights")
        files = {}
        if spec.name == "superpoint":
            files["superpoint.pth"] = superpoint_weights(SEED)
        if spec.name in ("superpoint", "aliked-t16"):
            files["lightglue.pth"] = lightglue_weights(spec.matcher, SEED)
        for name, state_dict in files.items():
            torch.save(state_dict, folder / name)
        return [folder / name for name in files]

    return make


@pytest.fixture(scope="session")
def networks(own_weights):
    """Makes a model's extractor and matcher in PyTorch, with so few layers that an export takes seconds."""

    def make(name, *, layers=1, deform_conv=False, **options):
        spec = with_layers(name, layers)
        files = resolve(spec.weights, own_weights(spec), print)
        settled = ExportOptions(**options).settle(spec)
        parts = exporter.load_networks(spec, files, settled, deform_conv=deform_conv)
        info = exporter._describe(spec, [], settled)
        return spec, exporter._rounded(parts, settled, [selfcheck._random_scene()], info)

    return make


@pytest.fixture(scope="session")
def write_graph(tmp_path_factory):
    """Exports one graph of these networks, without the check that `export_model` makes."""

    def write(graph, spec, parts, options):
        options = options.settle(spec)
        module = exporter._graphs(*parts, options)[graph]
        info = replace(exporter._describe(spec, [], options), graph=graph)
        path = tmp_path_factory.mktemp(spec.name) / f"{graph}.onnx"
        exporter._write(module, info, options.opset or 18, path)
        forget_garbage()
        return path

    return write


EXPORTS = {
    "xfeat": "split_export",
    "disk": "disk_export",
    "aliked": "aliked_export",
    "aliked-t16": "t16_export",
    "superpoint": "superpoint_export",
}


@pytest.fixture(scope="session")
def model(request):
    """Name of the model whose graphs the fixtures below run; tests are parametrised with it."""
    return request.param


@pytest.fixture(scope="session")
def export_of(request):
    """The export of a model, made when first asked for."""
    return lambda name: request.getfixturevalue(EXPORTS[name])


@pytest.fixture(scope="session")
def model_export(export_of, model):
    return export_of(model)


@pytest.fixture(scope="session")
def extractor(model_export):
    return GraphSession(model_export.files[0], "extractor", provider="cpu")


@pytest.fixture(scope="session")
def matcher(model_export):
    return GraphSession(model_export.files[1], "matcher", provider="cpu")


@pytest.fixture(scope="session")
def pipeline(pipeline_export):
    return GraphSession(pipeline_export.files[0], "pipeline", provider="cpu")


@pytest.fixture(scope="session")
def place(model):
    """Puts images on canvases: the extractor's inputs for all slots, and image_sizes."""

    def place(images, image_size=(640, 480), limit=1024):
        spec = MODELS[model]
        batch = vars(Canvas(image_size, spec.channels, spec.divisor).place(images))
        return batch | {"max_keypoints": np.array([limit])}

    return place


@pytest.fixture(scope="session")
def extract(extractor, place):
    """Features of images, with the image_sizes that the matcher wants beside them."""

    def extract(images, image_size=(640, 480), limit=1024):
        batch = place(images, image_size, limit)
        image_sizes = batch.pop("image_sizes")
        return extractor.run(batch) | {"image_sizes": image_sizes}

    return extract


@pytest.fixture(scope="session")
def match(matcher):
    """Matches of pairs between features."""

    def match(features, pairs, threshold=0.1):
        pairs = np.array(pairs, np.int64).reshape(-1, 2)
        return matcher.run(features | {"pairs": pairs, "match_threshold": np.array([threshold], np.float32)})

    return match
