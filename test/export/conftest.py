"""Exports made once for all tests of this folder, and what the laws are tested with."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from lightglue_ros.core.canvas import Canvas
from lightglue_ros.core.session import GraphSession
from lightglue_ros.export import export_model


@dataclass(frozen=True)
class Export:
    """What `export_model` wrote and said."""

    files: list[Path]
    lines: list[str]


@pytest.fixture(scope="session")
def split_export(tmp_path_factory):
    """Extractor and matcher with K = 1024."""
    lines = []
    files = export_model("xfeat", split=True, output=tmp_path_factory.mktemp("split"), report=lines.append)
    return Export(files, lines)


@pytest.fixture(scope="session")
def pipeline_export(tmp_path_factory):
    """A pipeline with K = 512, half of the other export's."""
    lines = []
    folder = tmp_path_factory.mktemp("pipeline")
    return Export(export_model("xfeat", max_keypoints=512, output=folder, report=lines.append), lines)


@pytest.fixture(scope="session")
def extractor(split_export):
    return GraphSession(split_export.files[0], "extractor", provider="cpu")


@pytest.fixture(scope="session")
def matcher(split_export):
    return GraphSession(split_export.files[1], "matcher", provider="cpu")


@pytest.fixture(scope="session")
def pipeline(pipeline_export):
    return GraphSession(pipeline_export.files[0], "pipeline", provider="cpu")


@pytest.fixture(scope="session")
def place():
    """Puts images on canvases: the extractor's inputs, K = 1024, and image_sizes."""

    def place(images, image_size=(640, 480)):
        batch = vars(Canvas(image_size, channels=3, divisor=32).place(images))
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
