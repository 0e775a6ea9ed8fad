"""Exports that are made once per session, and small networks for tests that need no trained matcher.

Models whose weights are not published, or may not be used in tests, get random weights (random_weights.py).
"""

import functools
import gc
from dataclasses import dataclass, replace
from pathlib import Path

import laws
import pytest
import torch
from make_goldens import MAX_KEYPOINTS
from random_weights import SEED, lightglue_weights, superpoint_weights

from lightglue_ros.core.session import GraphSession
from lightglue_ros.export import MODELS, export_model, exporter, selfcheck
from lightglue_ros.export.onnx_file import write_graph
from lightglue_ros.export.options import ExportOptions
from lightglue_ros.export.weights import resolve


@dataclass(frozen=True)
class Export:
    """Files and report lines of `export_model`."""

    files: list[Path]
    lines: list[str]


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Run PyTorch in one thread: waiting threads cost more than they gain on such small inputs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def export(tmp_path_factory):
    """Export a model with the self-check on random images, or on the scenes that `find_scenes` finds."""

    def export(name, *, find_scenes=lambda report: [selfcheck.random_scene()], **options):
        lines = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(selfcheck, "find_scenes", find_scenes)
            files = export_model(name, output=tmp_path_factory.mktemp(name), report=lines.append, **options)
        forget_garbage()
        return Export(files, lines)

    return export


def forget_garbage():
    """Exempt PyTorch's leftovers of an export from later collections, each of which would take a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def export_of(export, own_weights):
    """Export a model's extractor and matcher once. The matcher of aliked-t16 has two random layers.

    Only xfeat passes the self-check; test_goldens.py compares the other models with the originals.
    """

    @functools.cache
    def make(name):
        spec = with_layers(name, 2) if name == "aliked-t16" else MODELS[name]
        options = {"split": True, "max_keypoints": MAX_KEYPOINTS[name], "weights": own_weights(spec)}
        find_scenes = selfcheck.find_scenes if name == "xfeat" else lambda report: []
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(MODELS, name, spec)
            return export(name, find_scenes=find_scenes, **options)

    return make


@pytest.fixture(scope="session")
def split_export(export_of):
    """Extractor and matcher of xfeat with K = 1024."""
    return export_of("xfeat")


@pytest.fixture(scope="session")
def pipeline_export(export):
    """Pipeline of xfeat with K = 512, half the slots of `split_export`."""
    return export("xfeat", max_keypoints=512)


def with_layers(name, layers):
    """Return a model whose matcher has only its first layers."""
    spec = MODELS[name]
    return replace(spec, matcher=replace(spec.matcher, layers=layers))


@pytest.fixture(scope="session")
def own_weights(tmp_path_factory):
    """Write random weights for the models that need them, extractor first; other models need no files."""

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


@dataclass(frozen=True)
class Small:
    """Networks in PyTorch whose matcher has few layers, so that tracing takes seconds."""

    options: ExportOptions
    info: exporter.GraphInfo
    networks: exporter.Networks
    folder: Path

    @property
    def graphs(self):
        return exporter.build_graphs(self.networks, self.options)

    def write(self, graph):
        """Export one graph without the self-check, and return its path."""
        path = self.folder / f"{graph}.onnx"
        opset = self.options.opset or exporter.LOWEST_OPSET
        write_graph(self.graphs[graph], replace(self.info, graph=graph), opset, path)
        forget_garbage()
        return path


@pytest.fixture(scope="session")
def small(own_weights, tmp_path_factory):
    """Build small networks of a model in the precision of the options."""

    def make(name, *, layers=1, deform_conv=False, **options):
        spec = with_layers(name, layers)
        files = resolve(spec.weights, own_weights(spec), print)
        settled = ExportOptions(**options).settle(spec)
        networks = exporter.load_networks(spec, files, settled, deform_conv=deform_conv)
        info = exporter.describe(spec, [], settled)
        networks = exporter.to_precision(networks, settled, [selfcheck.random_scene()], info)
        return Small(settled, info, networks, tmp_path_factory.mktemp(name))

    return make


@pytest.fixture(scope="session")
def model(request):
    """Name of the model that the fixtures below run; tests parametrise it."""
    return request.param


@pytest.fixture(scope="session")
def extractor(export_of, model):
    return GraphSession(export_of(model).files[0], "extractor", provider="cpu")


@pytest.fixture(scope="session")
def matcher(export_of, model):
    return GraphSession(export_of(model).files[1], "matcher", provider="cpu")


@pytest.fixture(scope="session")
def pipeline(pipeline_export):
    return GraphSession(pipeline_export.files[0], "pipeline", provider="cpu", num_threads=1)


@pytest.fixture(scope="session")
def extract(extractor):
    """Extract features of images on a canvas of 640 x 480, with their image_sizes."""

    def extract(images, limit=1024):
        batch, image_sizes = laws.place(images, (640, 480), MODELS[extractor.info.model], limit)
        return extractor.run(batch) | {"image_sizes": image_sizes}

    return extract


@pytest.fixture(scope="session")
def match(matcher):
    """Match pairs between features."""
    return lambda features, pairs, threshold=0.1: matcher.run(laws.with_pairs(features, pairs, threshold))
