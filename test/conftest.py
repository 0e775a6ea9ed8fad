"""What all tests share: where the model, the images and the data of ../shared are."""

from pathlib import Path

import numpy as np
import pytest

from lightglue_ros.core import store
from lightglue_ros.core.images import read_image


@pytest.fixture(scope="session")
def model_folder():
    """The exported XFeat + LighterGlue, K = 1024, split."""
    folder = store.models_dir() / "xfeat"
    assert (folder / "matcher.onnx").is_file(), f"no model in {folder}; run the tests with: make test"
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
