"""What the README tells those who come from LightGlue's first ONNX port: its lines run, its tests exist."""

import re
import shlex
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from printed import FIRST_PORT, ROOT, lines_run_by, programs_run_by
from random_weights import lightglue_weights, superpoint_weights

from lightglue_ros.cli import main
from lightglue_ros.core.contract import INPUTS, OUTPUTS
from lightglue_ros.core.session import GraphSession
from lightglue_ros.export.registry import MODELS
from lightglue_ros.export.weights import motorcycle_pair


def section(title):
    """The README's section of a title."""
    return re.search(rf"\n### {title}\n(.*?)\n##", (ROOT / "README.md").read_text(), re.DOTALL)[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where its user works: with SuperPoint's weights files (random here) and two images."""
    folder = tmp_path_factory.mktemp("first_port")
    spec = MODELS["superpoint"]
    with pytest.MonkeyPatch.context() as patch:
        # Of one layer, which is sooner exported.
        small = replace(spec.matcher, layers=1)
        patch.setitem(MODELS, "superpoint", replace(spec, matcher=small))
        torch.save(superpoint_weights(seed=0), folder / "superpoint_v1.pth")
        torch.save(lightglue_weights(small, seed=0), folder / "superpoint_lightglue.pth")
        for name, path in zip(("left.png", "right.png"), motorcycle_pair(), strict=True):
            shutil.copy(path, folder / name)
        patch.chdir(folder)
        for command in lines_run_by(FIRST_PORT):
            program, *arguments = shlex.split(command, comments=True)
            assert program == "lightglue_ros"
            assert main(arguments) == 0
        yield folder


def test_the_commands_give_the_files_of_both_runners(folder):
    """The port's superpoint.onnx and superpoint_lightglue.onnx, and its end2end.onnx."""
    for path, graph in (
        ("superpoint/extractor.onnx", "extractor"),
        ("superpoint/matcher.onnx", "matcher"),
        ("end2end/pipeline.onnx", "pipeline"),
    ):
        info = GraphSession(folder / path, graph, provider="cpu").info
        assert (info.graph, info.image_size) == (graph, (512, 512))


def test_each_line_of_python_runs(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (program,) = programs_run_by(FIRST_PORT)
    values = {}
    exec(program, values)
    points0, points1 = values["m_kpts0"], values["m_kpts1"]
    assert len(points0) == len(points1) == len(values["pair"].scores)
    assert values["runner"].info.model == values["end2end"].info.model == "superpoint"
    np.testing.assert_allclose(values["end2end_pair"].keypoints0, points0)
    # Pixels of the 741 x 500 images, not of the 512 x 512 canvas.
    values["runner"].match_threshold = 0.0  # above which random weights match little
    (pair,) = values["runner"].match([values["image0"]] * 2, [(0, 1)])
    assert pair.keypoints0[:, 0].max() > 600


def test_every_name_of_the_port_is_mapped():
    text = section("From LightGlue's first ONNX port")
    for name in (
        "SuperpointLightglueRunner",
        "SuperPointLightGlueEnd2EndRunner",
        "load_image",
        "rgb_to_grayscale",
        "--img_size",
        "superpoint_path",
        "lightglue_path",
        "onnx_path",
        "normalize_keypoints",
        "post_process",
        "runner.run",
    ):
        assert name in text, name


def test_each_row_of_its_caveats_names_a_test_that_exists():
    table = section("Its caveats, and here").splitlines()
    rows = [row.split("|") for row in table if row.startswith("| ")][2:]  # after the header
    assert len(rows) >= 9
    tests = "\n".join(path.read_text() for path in (ROOT / "test").rglob("test_*.py"))
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row[-2])
        assert named or row[-2].strip() == "not yet", row
        for name in named:
            assert f"def {name}(" in tests, name


def test_both_graphs_need_nothing_done_outside_of_them(folder):
    """Images of bytes in, pixels of the original images and mutual matches out."""
    assert "images" in INPUTS["pipeline"]
    assert {"keypoints", "matches", "match_scores"} <= set(OUTPUTS["pipeline"])
    session = GraphSession(folder / "end2end/pipeline.onnx", "pipeline", provider="cpu")
    types = {tensor.name: tensor.type for tensor in session._session.get_inputs()}
    assert types["images"] == "tensor(uint8)"
