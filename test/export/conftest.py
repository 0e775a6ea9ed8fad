"""Exports made once for all tests of this folder, and what the laws are tested with."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from lightglue_ros.core.canvas import Canvas
from lightglue_ros.core.session import GraphSession
from lightglue_ros.export import MODELS, export_model


@dataclass(frozen=True)
class Export:
    """What `export_model` wrote and said."""

    files: list[Path]
    lines: list[str]


@pytest.fixture(scope="session")
def split_export(tmp_path_factory):
    """Extractor and matcher of xfeat with K = 1024."""
    return export("xfeat", tmp_path_factory.mktemp("split"), split=True)


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
    """Extractor and matcher of aliked with K = 512, as more would take long."""
    return export("aliked", tmp_path_factory.mktemp("aliked"), split=True, max_keypoints=512)


def export(name, folder, **options):
    lines = []
    return Export(export_model(name, output=folder, report=lines.append, **options), lines)


@pytest.fixture(scope="session", params=["xfeat", "disk"])
def model(request):
    """Name of the model whose graphs the fixtures below run."""
    return request.param


@pytest.fixture(scope="session")
def model_export(request, model):
    return request.getfixturevalue({"xfeat": "split_export", "disk": "disk_export"}[model])


@pytest.fixture(scope="session")
def extractor(model_export):
    return GraphSession(model_export.files[0], "extractor", provider="cpu")


@pytest.fixture(scope="session")
def matcher(model_export):
    return GraphSession(model_export.files[1], "matcher", provider="cpu")


@pytest.fixture(scope="session")
def slots(extractor):
    """K of the model's export."""
    return extractor.info.max_keypoints


@pytest.fixture(scope="session")
def pipeline(pipeline_export):
    return GraphSession(pipeline_export.files[0], "pipeline", provider="cpu")


@pytest.fixture(scope="session")
def place(model):
    """Puts images on canvases: the extractor's inputs for all slots, and image_sizes."""

    def place(images, image_size=(640, 480)):
        batch = vars(Canvas(image_size, channels=3, divisor=MODELS[model].divisor).place(images))
        return batch | {"max_keypoints": np.array([1024])}

    return place


@pytest.fixture(scope="session")
def extract(extractor, place):
    """Features of images, with the image_sizes that the matcher wants beside them."""

    def extract(images, image_size=(640, 480)):
        batch = place(images, image_size)
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


@pytest.fixture(scope="session")
def features(extract, motorcycle):
    """Of four slots: the left image, an empty one, the right image, a part of the left one."""
    left, right = motorcycle
    return extract([left, None, right, left[100:400, 50:700]])
