"""docs/coming_from.md: its Python runs, on the models that its commands would export."""

import re
import shlex

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="no PyTorch here, which the names of exports need")

from printed import COMING_FROM, ROOT, programs_run_by

from lightglue_ros import cli
from lightglue_ros.cli.export import EXPORT_OPTIONS
from lightglue_ros.core import MatchPipeline, store
from lightglue_ros.core.image_files import write_image
from lightglue_ros.export.exporter import stored_name
from lightglue_ros.export.options import ExportOptions

PAGE = (ROOT / "docs" / "coming_from.md").read_text()


@pytest.fixture(scope="module")
def user(model_folder, motorcycle, tmp_path_factory):
    """Where its user works, with two images; in the store XFeat has the name of each export of the page."""
    folder = tmp_path_factory.mktemp("user")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIGHTGLUE_ROS_HOME", str(folder))
        patch.chdir(folder)
        for name in exported_names():
            (store.models_dir() / name).mkdir(parents=True)
            for graph in ("extractor", "matcher"):
                (store.models_dir() / name / f"{graph}.onnx").symlink_to(model_folder / f"{graph}.onnx")
        for name, image in zip(("left.png", "right.png"), motorcycle, strict=True):
            write_image(folder / name, image)
        yield folder


def exported_names():
    """The names in the store that the page's commands write."""
    for line in re.findall(r"^    lightglue_ros (export .*)$", PAGE, re.MULTILINE):
        arguments = cli.make_parser().parse_args(shlex.split(line))
        if arguments.split and arguments.output is None:
            options = {name: getattr(arguments, name) for name in EXPORT_OPTIONS}
            yield stored_name(arguments.model, ExportOptions(**options))


@pytest.fixture(scope="module")
def values(user):
    """The page's names after all its Python, in its order."""
    values = {}
    for program in programs_run_by(COMING_FROM):
        exec(program, values)
    return values


def test_points_are_matched_in_pixels_of_the_original_images(values, motorcycle):
    np.testing.assert_array_equal(values["points0"], values["same_points0"])
    assert len(values["points0"]) == len(values["scores"]) > 300
    assert values["stop"] == 6
    (expected,) = MatchPipeline("xfeat-k4096", "cpu", (741, 500)).match(motorcycle, [(0, 1)])
    np.testing.assert_array_equal(values["mkpts_0"], expected.keypoints0)
    np.testing.assert_array_equal(values["mkpts_1"], expected.keypoints1)


def test_the_pair_with_a_missing_image_alone_is_empty(values):
    first, missing, turned = values["counts"]
    assert first > 300
    assert missing == 0
    assert turned > 300


def test_opencv_gets_the_same_matches(values):
    pair, keypoints = values["pair"], values["keypoints"]
    for match, point0, point1, score in zip(
        values["matches"], pair.keypoints0, pair.keypoints1, pair.scores, strict=True
    ):
        assert keypoints[0][match.queryIdx].pt == pytest.approx(point0.tolist())
        assert keypoints[1][match.trainIdx].pt == pytest.approx(point1.tolist())
        assert match.distance == pytest.approx(1 - score, abs=1e-6)
    assert isinstance(keypoints[0][0], cv2.KeyPoint)
    assert values["picture"].shape == (500, 2 * 741, 3)
    assert values["matrix"].shape == (3, 3)
    assert values["inliers"].mean() > 0.6
