"""`lightglue_ros match QUERY --against FOLDER`."""

import json
import shutil

import numpy as np
import pytest

from lightglue_ros.cli import kept_features
from lightglue_ros.core import MatchPipeline
from lightglue_ros.core.image_files import list_images, read_image, write_image

SMALL = ("--image-size", "320x224")
NO_H5PY = "no h5py here (pip install h5py)"


@pytest.fixture(scope="module")
def places(motorcycle, tmp_path_factory):
    """Five images, of which only 10.png is the right image of the motorcycle as it is."""
    folder = tmp_path_factory.mktemp("places")
    left, right = motorcycle
    for name, image in (
        ("1.png", left[::-1]),
        ("2.png", left[:, ::-1]),
        ("3.png", right[:200]),
        ("10.png", right),
        ("11.png", np.zeros_like(left)),
    ):
        write_image(folder / name, np.ascontiguousarray(image))
    return folder


@pytest.fixture
def query(motorcycle, tmp_path):
    path = tmp_path / "query.png"
    write_image(path, motorcycle[0])
    return path


@pytest.fixture
def kept(tmp_path):
    pytest.importorskip("h5py", reason=NO_H5PY)
    return tmp_path / "places.h5"


def ranked(file):
    return [entry["image1"].rsplit("/", 1)[1] for entry in json.loads(file.read_text())]


@pytest.mark.model
def test_the_references_of_each_query_come_best_first(match, query, places, tmp_path, model_folder):
    files = ("--json", tmp_path / "m.json", "--npz", tmp_path / "m.npz", "--draw", tmp_path / "best.png")
    lines = match(query, places / "3.png", "--against", places, "--verify", "fundamental", *SMALL, *files)
    entries = json.loads((tmp_path / "m.json").read_text())
    assert [entry["image0"] for entry in entries] == 5 * [str(query)] + 5 * [str(places / "3.png")]
    inliers = [sum(entry["inliers"]) for entry in entries]
    for of_query in (inliers[:5], inliers[5:]):
        assert of_query == sorted(of_query, reverse=True)
    names = ranked(tmp_path / "m.json")
    assert (names[:2], names[5:7]) == (["10.png", "3.png"], ["3.png", "10.png"])
    assert (
        lines[1] == f"{query} {places / '10.png'}: {len(entries[0]['scores'])} matches, {inliers[0]} inliers"
    )
    arrays = np.load(tmp_path / "m.npz")
    assert arrays["images"][arrays["pairs"][0]].tolist() == [str(query), str(places / "10.png")]
    pipeline = MatchPipeline(model_folder, "cpu", image_size=(320, 224))
    (expected,) = pipeline.match([read_image(query), read_image(places / "10.png")], [(0, 1)])
    np.testing.assert_allclose(entries[0]["keypoints1"], expected.keypoints1, atol=1e-3)
    assert read_image(tmp_path / "best.png").shape[1] > 1000


@pytest.mark.model
def test_a_place_on_a_drive_is_found_next_to_its_neighbours(match, shared_data, model_folder, tmp_path):
    """Every second frame, and other pictures; bench/references.py does it with all of them."""
    drive = list_images(shared_data / "kitti_seq1" / "image_l")[:15]
    others = [*list_images(shared_data / "rig_lund")[:2], *list_images(shared_data / "pairs")[:2]]
    folder = tmp_path / "places"
    folder.mkdir()
    for number, path in enumerate([*drive[::2], *others]):
        (folder / f"{number}{path.suffix}").symlink_to(path)
    queries = drive[1:-1:4]
    match(*queries, "--against", folder, "--image-size", "320x96", "--json", tmp_path / "m.json")
    names = ranked(tmp_path / "m.json")
    first = [int(names[number].split(".")[0]) for number in range(0, len(names), len(drive[::2] + others))]
    assert len(first) == len(queries) == 4
    for query, found in zip(range(1, len(drive) - 1, 4), first, strict=True):
        assert found in (query // 2, query // 2 + 1)


@pytest.mark.model
def test_kept_features_give_the_same_and_only_new_and_changed_images_are_extracted(
    match, run, query, places, kept, tmp_path
):
    folder = tmp_path / "copied"
    shutil.copytree(places, folder)

    def against(*more):
        lines = match(query, "--against", folder, *SMALL, "--json", tmp_path / "m.json", *more)
        count = [line for line in lines if "extracted now" in line]
        return count, json.loads((tmp_path / "m.json").read_text())

    _, expected = against()
    assert against("--h5", kept) == (["5 references, 5 of them extracted now"], expected)
    assert against("--h5", kept) == (["5 references, 0 of them extracted now"], expected)
    write_image(folder / "11.png", read_image(query))
    (folder / "1.png").unlink()
    count, entries = against("--h5", kept)
    assert count == ["4 references, 1 of them extracted now"]
    assert entries[0]["image1"] == str(folder / "11.png")

    # Without refinement no grey images are needed; with it they are made.
    kept.unlink()
    assert against("--h5", kept, "--refine", "none")[0] == ["4 references, 4 of them extracted now"]
    assert against("--h5", kept) == (["4 references, 4 of them extracted now"], entries)
    (folder / "2.png").write_bytes(b"no image")
    status, _, log = run(query, "--against", folder, *SMALL, "--h5", kept)
    assert status == 1
    assert log.count("left out: ") == 1
    assert str(folder / "2.png") in log
    assert kept.exists()


@pytest.mark.model
def test_a_run_that_ends_while_it_extracts_leaves_the_kept_features_as_they_were(
    match, run, query, places, kept, tmp_path, monkeypatch
):
    folder = tmp_path / "copied"
    shutil.copytree(places, folder)
    arguments = (query, "--against", folder, *SMALL, "--h5", kept)
    match(*arguments)
    before = kept.read_bytes()
    write_image(folder / "12.png", read_image(query))

    def end(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as changed:
        changed.setattr(kept_features, "write_features", end)
        assert run(*arguments)[0] == 130
    assert kept.read_bytes() == before
    # What a killed process leaves next to it does not matter.
    kept.with_name(f"{kept.name}.part").write_bytes(before[:1000])
    assert "6 references, 1 of them extracted now" in match(*arguments)


@pytest.mark.model
def test_features_of_other_settings_and_other_files_are_refused(match, error_of, query, places, kept):
    match(query, "--against", places, *SMALL, "--h5", kept)
    before = kept.read_bytes()
    line = error_of(query, "--against", places, "--image-size", "320x256", "--h5", kept)
    assert f"{kept} has features of image_size 320x224, and image_size is 320x256 now" in line
    line = error_of(query, "--against", places, *SMALL, "--max-keypoints", 99, "--h5", kept)
    assert "max_keypoints is 99 now" in line
    assert kept.read_bytes() == before
    kept.write_bytes(before[:1000])
    line = error_of(query, "--against", places, *SMALL, "--h5", kept)
    assert "is no file of features that match --against has written" in line
    line = error_of(query, "--against", places, *SMALL, "--h5", kept, "--json", kept)
    assert "two outputs have the same name" in line
    assert kept.read_bytes() == before[:1000]
    assert "--against and --pairs" in error_of(query, "--against", places, "--pairs", "0:1")
    assert "allowed: a folder of images" in error_of(query, "--against", query)
    assert len(list_images(places)) == 5
