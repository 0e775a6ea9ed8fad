"""Fixtures of all tests: the model, the images, and the data of ../shared."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from lightglue_ros.core import MatchPipeline, pipeline, store
from lightglue_ros.core.device import DeviceRunner
from lightglue_ros.core.image_files import read_image


def pytest_collection_modifyitems(items):
    """Mark the tests that `make check` leaves out."""
    for item in items:
        if {"model_folder", "motorcycle", "shared_data"} & set(item.fixturenames):
            item.add_marker(pytest.mark.model)


@pytest.fixture(scope="session")
def model_folder():
    """The exported XFeat + LighterGlue, K = 1024, split."""
    folder = store.models_dir() / "xfeat"
    if not (folder / "matcher.onnx").is_file():
        pytest.skip(f"no model in {folder} (lightglue_ros export xfeat --split)")
    return folder


@pytest.fixture(scope="session")
def motorcycle():
    """Left and right image of Middlebury's motorcycle, uint8 [500, 741, 3] RGB."""
    from lightglue_ros.export.weights import motorcycle_pair

    return tuple(read_image(path) for path in motorcycle_pair())


@pytest.fixture(scope="session")
def shared_data():
    """The folder ../shared/data beside the checkout, which is no part of the project."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no ../shared/data beside this checkout")
    return folder


@pytest.fixture
def noise():
    """Makes uint8 [H, W, 3] of random bytes."""
    random = np.random.default_rng(0)
    return lambda height, width: random.integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(scope="session")
def on_device():
    """Makes a pipeline that runs as on a GPU, with the memory of the CPU in the place of the GPU's."""

    def make(model, *arguments, **options):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pipeline, "HostRunner", partial(DeviceRunner, device="cpu"))
            return MatchPipeline(model, "cpu", *arguments, **options)

    return make
