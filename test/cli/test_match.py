"""`lightglue_ros match`, with its files read back."""

import json
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from unusual_files import turned

from lightglue_ros.cli import main
from lightglue_ros.cli.demo import same_row_share
from lightglue_ros.core import MatchPipeline
from lightglue_ros.core.features import MATCH_ARRAYS
from lightglue_ros.core.image_files import find_images, read_image, write_image
from lightglue_ros.core.mono16 import Mono16Range

NO_H5PY = "no h5py here (pip install h5py)"


@pytest.fixture(scope="module")
def pipeline(model_folder):
    return MatchPipeline(model_folder, "cpu")


@pytest.fixture(scope="module")
def verified(folder, tmp_path_factory):
    """All files of a run over a folder, each image with the next, verified."""
    out = tmp_path_factory.mktemp("out")
    files = [word for kind in ("json", "npz", "h5", "draw") for word in (f"--{kind}", out / f"pairs_{kind}")]
    words = [sys.executable, "-m", "lightglue_ros", "match", folder, "--verify", "fundamental", *files]
    return subprocess.run([*words, "--provider", "cpu"], capture_output=True, text=True, check=True), out


@pytest.fixture(scope="module")
def expected(pipeline, folder):
    images = [read_image(path) for path in find_images([folder])]
    features = pipeline.extract(images)
    return features, pipeline.match(images, [(0, 1), (1, 2)])


def assert_same_matches(read, of_pipeline):
    for name in MATCH_ARRAYS:
        np.testing.assert_allclose(read[name], getattr(of_pipeline, name), atol=1e-3, err_msg=name)


def test_json_and_npz_have_the_matches_and_inliers_of_each_pair(verified, folder, expected):
    entries = json.loads((verified[1] / "pairs_json").read_text())
    arrays = np.load(verified[1] / "pairs_npz")
    paths = [str(folder / name) for name in ("a.png", "b.png", "c.png")]
    assert [entry["image0"] for entry in entries] == paths[:2]
    assert arrays["images"].tolist() == paths
    assert arrays["pairs"].tolist() == [[0, 1], [1, 2]]
    for number, (entry, matches) in enumerate(zip(entries, expected[1], strict=True)):
        of_pair = arrays["pair_of_match"] == number
        assert_same_matches(entry, matches)
        assert_same_matches({name: arrays[name][of_pair] for name in MATCH_ARRAYS}, matches)
        assert entry["checked"] == arrays["checked"][of_pair].tolist() == matches.checked.tolist()
        assert len(entry["inliers"]) == len(matches)
        assert arrays["inliers"][of_pair].tolist() == entry["inliers"]
        assert np.array(entry["matrix"]).shape == (3, 3)
        np.testing.assert_allclose(arrays["matrices"][number], entry["matrix"])
        assert f"{len(matches)} matches, {sum(entry['inliers'])} inliers" in verified[0].stdout


def test_hdf5_is_laid_out_as_hloc_reads_it(verified, expected):
    h5py = pytest.importorskip("h5py", reason=NO_H5PY)
    features, pairs = expected
    out = verified[1] / "pairs_h5"
    assert sorted(path.name for path in out.iterdir()) == ["features.h5", "matches.h5", "pairs.txt"]
    assert (out / "pairs.txt").read_text() == "a.png b.png\nb.png c.png\n"
    with h5py.File(out / "features.h5") as file:
        assert set(file) == {"a.png", "b.png", "c.png"}
        for slot, name in enumerate(sorted(file)):
            mask = features.mask[slot]
            np.testing.assert_allclose(file[name]["keypoints"], features.keypoints[slot][mask], atol=1e-3)
            np.testing.assert_allclose(file[name]["scores"], features.scores[slot][mask], atol=1e-4)
            # hloc wants a column for each keypoint.
            np.testing.assert_allclose(
                file[name]["descriptors"], features.descriptors[slot][mask].T, atol=1e-4
            )
            assert file[name]["image_size"][:].tolist() == features.image_sizes[slot].tolist()
        assert file["a.png/keypoints"].attrs["uncertainty"] == pytest.approx(741 / 640)
        assert file["c.png/keypoints"].attrs["uncertainty"] == 1.0
    with h5py.File(out / "matches.h5") as file:
        for name, matches in zip(("a.png/b.png", "b.png/c.png"), pairs, strict=True):
            partners, scores = file[name]["matches0"][:], file[name]["matching_scores0"][:]
            assert np.flatnonzero(partners != -1).tolist() == matches.indices0.tolist()
            assert partners[partners != -1].tolist() == matches.indices1.tolist()
            np.testing.assert_allclose(scores[partners != -1], matches.scores, atol=1e-3)
            assert not scores[partners == -1].any()
            assert file[name]["inliers0"].dtype == bool


def test_a_folder_of_pictures_has_one_for_each_pair(verified, motorcycle):
    pictures = find_images([verified[1] / "pairs_draw"])
    assert [path.name for path in pictures] == ["0000_a_b.png", "0001_b_c.png"]
    picture = read_image(pictures[0])
    assert picture.shape == (500, 2 * 741, 3)
    # A keypoint without a match is seen, though faintly: more is drawn than the lines' green.
    drawn = np.any(picture[:, :741] != motorcycle[0], axis=2)
    green = (picture[:, :741, 1] > 200) & (picture[:, :741, 2] < 60)
    assert green.sum() > 1000
    assert (drawn & ~green).sum() > 1000


def test_inliers_lie_on_the_same_row_more_often_than_all_matches(verified):
    entry = json.loads((verified[1] / "pairs_json").read_text())[0]
    inliers = np.array(entry["inliers"])
    points = np.float32(entry["keypoints0"]), np.float32(entry["keypoints1"])
    assert same_row_share(*points, 1.5) < 0.95
    assert same_row_share(*(of[inliers] for of in points), 1.5) > 0.99
    assert 0.8 < inliers.mean() < 1.0


@pytest.mark.parametrize(
    "verify", [["homography"], ["essential", "--intrinsics", "994.978,994.978,311.193,254.877"]]
)
def test_other_geometries_mark_inliers(match, folder, tmp_path, verify):
    match(folder / "[ab].png", "--verify", *verify, "--json", tmp_path / "m.json")
    (entry,) = json.loads((tmp_path / "m.json").read_text())
    assert entry["geometry"] == verify[0]
    assert np.array(entry["matrix"]).shape == (3, 3)
    assert 0.05 < np.mean(entry["inliers"]) < 1.0


def test_named_pairs_in_a_size_with_one_picture_and_without_verification(match, folder, tmp_path):
    files = [word for kind in ("json", "npz") for word in (f"--{kind}", tmp_path / kind)]
    picture = tmp_path / "m.png"
    said = match(folder / "*.png", "--pairs", "2:0,0:0", "--image-size", "300x200", "--draw", picture, *files)
    assert said[0] == "xfeat on cpu, images shrunk to fit 320x224"
    names = [[str(folder / name) for name in pair] for pair in (("c.png", "a.png"), ("a.png", "a.png"))]
    assert [line.split(": ")[0].split() for line in said[1:3]] == names
    entries = json.loads((tmp_path / "json").read_text())
    assert [[entry["image0"], entry["image1"]] for entry in entries] == names
    assert not {"inliers", "matrix", "geometry"} & set(entries[0])
    assert not {"inliers", "matrices"} & set(np.load(tmp_path / "npz"))
    assert read_image(picture).shape == (500, 400 + 741, 3)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{folder}/*.jpg"], "no images are named {folder}/*.jpg"),
        (["{empty}"], "folder {empty} holds no images"),
        (["{folder}", "--colour", "depth"], "--colour is 'depth'; allowed: score, disparity"),
        (["{folder}", "--colour", "age"], "--colour is 'age', and two pictures have no tracks"),
        (["{folder}", "--lines", "-1"], "--lines is -1; allowed: 0 or more"),
        (["{folder}", "--verify", "affine"], "--verify is 'affine'; allowed: fundamental"),
        (["{folder}", "--verify", "essential"], "--verify essential and --intrinsics go together"),
        (["{folder}", "--intrinsics", "1,1,1,1"], "--verify essential and --intrinsics go together"),
        (["{folder}", "--verify", "essential", "--intrinsics", "1,2"], "four numbers fx,fy,cx,cy"),
        (["{folder}", "--verify", "essential", "--intrinsics", "0,1,1,1"], "greater than 0"),
        (["{folder}", "--h5", "/nowhere/h5"], "cannot write /nowhere/h5: there is no folder /nowhere"),
        (["{folder}", "--h5", "{folder}/a.png"], "cannot write {folder}/a.png: it is no folder"),
        (["{folder}", "--draw", "/nowhere/x.png"], "cannot write /nowhere/x.png"),
        (["{folder}", "--draw", "x.gif"], "cannot write x.gif: no image format has this suffix"),
        (["{folder}", "--json", "{folder}"], "cannot write {folder}: it is a folder"),
        (["{folder}", "--npz", "/dev/full"], "cannot write /dev/full: it is no regular file"),
        (["{folder}", "--npz", "m", "--json", "m"], "two outputs have the same name"),
        (["{folder}/a.png"], "nothing to match"),
        (["{folder}", "--pairs", "0-1"], "--pairs is '0-1'"),
        (["{folder}", "--pairs", "0:7"], "from 0 to 2"),
        (["{folder}", "--model", "none"], "no model 'none'"),
    ],
)
def test_errors_are_one_line_and_come_before_the_model_is_loaded(run, folder, tmp_path, arguments, says):
    status, said, log = run(*(word.format(folder=folder, empty=tmp_path) for word in arguments))
    assert (status, said, len(log.splitlines())) == (1, "", 1)
    assert says.format(folder=folder, empty=tmp_path) in log


def test_files_that_hloc_could_not_read_are_not_begun(error_of, folder, tmp_path):
    pytest.importorskip("h5py", reason=NO_H5PY)
    shutil.copy(folder / "a.png", tmp_path / "an image.png")
    assert "has a space" in error_of(tmp_path / "an image.png", folder / "b.png", "--h5", tmp_path / "h5")
    assert not (tmp_path / "h5").exists()


def test_files_are_matched_as_stored_whatever_depth_and_exif_say(match, motorcycle, pipeline, tmp_path):
    """A scene of about 10 K as a radiometric camera stores it, a 12-bit camera, and turned JPEGs."""
    expected = []
    greys = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in motorcycle]
    for number, (base, counts) in enumerate(((7430, 250), (0, 4095))):
        deep = [np.round(base + grey / 255.0 * counts).astype(np.uint16) for grey in greys]
        for side, image in enumerate(deep):
            cv2.imwrite(str(tmp_path / f"{number}{side}.png"), image)
        expected += pipeline.match([Mono16Range().to_8_bits(image) for image in deep], [(0, 1)])
    jpeg = cv2.imencode(".jpg", motorcycle[0][..., ::-1])[1].tobytes()
    (tmp_path / "upright.jpg").write_bytes(jpeg)
    for orientation in (3, 6, 8):
        (tmp_path / f"x{orientation}.jpg").write_bytes(turned(jpeg, orientation))
    match(tmp_path, "--pairs", "0:1,2:3,4:5,4:6,4:7", "--npz", tmp_path / "m.npz")
    arrays = np.load(tmp_path / "m.npz")
    counts = np.bincount(arrays["pair_of_match"])
    assert counts.tolist()[:2] == [len(matches) for matches in expected]
    assert counts.min() > 500
    of_jpeg = arrays["pair_of_match"] >= 2
    np.testing.assert_array_equal(arrays["keypoints0"][of_jpeg], arrays["keypoints1"][of_jpeg])


def test_a_sequence_is_matched_as_its_pairs_are_alone(match, shared_data, model_folder, tmp_path):
    paths = find_images([shared_data / "kitti_seq1" / "image_l"])[:16]
    match(*paths, "--image-size", "320x96", "--npz", tmp_path / "m.npz")
    arrays = np.load(tmp_path / "m.npz")
    assert arrays["pairs"].tolist() == [[number, number + 1] for number in range(15)]
    pipeline = MatchPipeline(model_folder, "cpu", (320, 96))
    for number in (0, 7, 14):
        images = [read_image(path) for path in paths[number : number + 2]]
        (alone,) = pipeline.match(images, [(0, 1)])
        of_pair = arrays["pair_of_match"] == number
        assert_same_matches({name: arrays[name][of_pair] for name in MATCH_ARRAYS}, alone)
    assert np.bincount(arrays["pair_of_match"]).min() > 200


def test_rotations_auto_matches_an_image_on_its_side(folder, motorcycle, tmp_path, capsys):
    side = tmp_path / "side.png"
    write_image(side, np.rot90(motorcycle[1]).copy())
    words = ["match", folder / "a.png", side, "--rotations", "auto", "--image-size", "320x320"]
    files = ["--draw", tmp_path / "drawn.png", "--json", tmp_path / "pairs.json", "--verify", "fundamental"]
    assert main([*map(str, [*words, *files]), "--provider", "cpu"]) == 0
    (entry,) = json.loads((tmp_path / "pairs.json").read_text())
    x0, y0 = np.array(entry["keypoints0"]).T
    x1, _ = np.array(entry["keypoints1"]).T
    assert len(x0) > 100
    # On the same row, which is a column of the image on its side.
    assert np.mean(np.abs(x1 - y0) < 5) > 0.8
    assert main([*map(str, words), "--h5", str(tmp_path / "h5")]) == 1
    assert "--rotations auto and --h5 do not go together" in capsys.readouterr().err
