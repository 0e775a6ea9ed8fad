"""`lightglue_ros match` where something fails: the rest is matched, and files are whole or absent."""

import json
import random
import resource
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest
from unusual_files import GIGAPIXEL_PNG, LFS_POINTER

from lightglue_ros.cli import matching
from lightglue_ros.core import MatchPipeline
from lightglue_ros.core.image_files import find_images

NO_H5PY = "no h5py here (pip install h5py)"
FLOAT_TIFF = cv2.imencode(".tif", np.ones((9, 9), np.float32))[1].tobytes()
IMAGES, BROKEN = 51, 25
# A run on crops of 256x192 pixels takes a few seconds.
QUICK = ("--image-size", "256x192", "--max-keypoints", "256")


@pytest.fixture(scope="module")
def sequence(motorcycle, tmp_path_factory):
    """A camera that moves to the right for 51 images, named 1.jpg to 51.jpg; one of them is cut off."""
    folder = tmp_path_factory.mktemp("sequence")
    for number in range(1, IMAGES + 1):
        crop = motorcycle[0][100:292, 4 * number : 4 * number + 256, ::-1]
        data = cv2.imencode(".jpg", crop)[1].tobytes()
        cut = len(data) // 2 if number == BROKEN else len(data)
        (folder / f"{number}.jpg").write_bytes(data[:cut])
    return folder


def words_for(folder, *kinds):
    """The words of the command that write files of these kinds into a folder."""
    return [word for kind in kinds for word in (f"--{kind}", folder / kind)]


def files_of(folder):
    """The files that words_for() lets the command write, those of HDF5 too."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def read_whole(path):
    """Read a file to its end; return the number of pairs in it (in features.h5, of images)."""
    if path.name == "json":
        return len(json.loads(path.read_text()))
    if path.name == "npz":
        with np.load(path) as arrays:
            assert len(arrays["pair_of_match"]) == len(arrays["scores"])
            return len(arrays["pairs"])
    if path.name == "pairs.txt":
        return len(path.read_text().splitlines())
    arrays = {}

    def read(name, item):
        if hasattr(item, "shape"):
            arrays[name] = item[()]

    with pytest.importorskip("h5py", reason=NO_H5PY).File(path) as file:
        file.visititems(read)
    return sum(name.endswith(("/matches0", "/keypoints")) for name in arrays)


def start(*arguments, **options):
    words = [sys.executable, "-m", "lightglue_ros", "match", *map(str, arguments), "--provider", "cpu"]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_a_broken_image_among_51_is_named_and_the_rest_is_in_all_files_in_the_order_of_numbers(
    run, sequence, tmp_path
):
    pytest.importorskip("h5py", reason=NO_H5PY)
    words = words_for(tmp_path, "json", "npz", "h5", "draw")
    status, said, log = run(sequence, *QUICK, *words)
    assert status == 1
    assert log.count(f"{BROKEN}.jpg") == 1
    assert f"left out: {sequence / f'{BROKEN}.jpg'} cannot be read as an image: jpeg image of" in log
    assert "2 of 50 pairs left out" in log
    expected = [(n, n + 1) for n in range(1, IMAGES) if BROKEN not in (n, n + 1)]
    entries = json.loads((tmp_path / "json").read_text())
    assert [(entry["image0"], entry["image1"]) for entry in entries] == [
        tuple(str(sequence / f"{number}.jpg") for number in pair) for pair in expected
    ]
    arrays = np.load(tmp_path / "npz")
    assert (arrays["pairs"] + 1).tolist() == [list(pair) for pair in expected]
    assert len(arrays["images"]) == IMAGES
    h5 = {path.name: read_whole(path) for path in files_of(tmp_path / "h5")}
    assert h5 == {"features.h5": IMAGES - 1, "matches.h5": 48, "pairs.txt": 48}
    assert len(find_images([tmp_path / "draw"])) == 48
    assert len(said.splitlines()) == 1 + 48


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"no image", "image beginning with b'no image'"),
        (b"", "empty image of 0 bytes cannot be decoded"),
        (GIGAPIXEL_PNG, "20000x60000 pixels, more than OpenCV decodes"),
        (LFS_POINTER, "it is a Git LFS pointer, which stands for a file that was not fetched"),
        (b"#ROSBAG V2.0\n" + bytes(100), "it is a ROS 1 bag; allowed: an image; fix: convert it"),
        (FLOAT_TIFF, "TIFF image has float32 values; allowed: 8 or 16 bits"),
    ],
    ids=["no image", "empty", "gigapixel PNG", "Git LFS pointer", "ROS 1 bag", "float TIFF"],
)
def test_a_pair_that_cannot_be_matched_says_why_and_leaves_no_file(run, folder, tmp_path, content, says):
    broken = tmp_path / "broken.png"
    broken.write_bytes(content)
    status, _, log = run(folder / "a.png", broken, *words_for(tmp_path, "json", "npz"))
    assert status == 1
    assert f"left out: {broken} cannot be read as an image: " in log
    assert says in log
    assert "error: none of 1 pairs could be matched" in log
    assert len(log.splitlines()) == 2
    assert list(tmp_path.iterdir()) == [broken]


@pytest.mark.parametrize(
    ("stage", "named"),
    [("extract", ["c.png"]), ("match_features", ["b.png {folder}/c.png", "a.png {folder}/c.png"])],
)
def test_an_image_or_pair_at_which_onnx_runtime_raises_is_named_with_one_traceback_and_the_others_go_on(
    model_folder, folder, capfd, monkeypatch, stage, named
):
    pipeline = MatchPipeline(model_folder, "cpu", (320, 224))
    run = getattr(pipeline, stage)

    def failing(images, *pairs):
        """Fail if c.png takes part, alone or among others."""
        if stage == "extract":
            fails = any(image.shape == (300, 400, 3) for image in images)
        else:
            fails = any(tuple(images.image_sizes[second]) == (400, 300) for _, second in pairs[0])
        if fails:
            raise RuntimeError("bad allocation\nin node MatMul")
        return run(images, *pairs)

    monkeypatch.setattr(pipeline, stage, failing)
    pairs = [(0, 1), (1, 2), (1, 0), (0, 2)]
    assert matching.match_and_write(pipeline, find_images([folder]), pairs, matching.Outputs()) == 1
    said, log = capfd.readouterr()
    a, b = folder / "a.png", folder / "b.png"
    assert [line.split(": ")[0] for line in said.splitlines()] == [f"{a} {b}", f"{b} {a}"]
    assert log.count("Traceback (most recent call last)") == 1
    assert [line for line in log.splitlines() if line.startswith("left out")] == [
        f"left out: {folder}/{name.format(folder=folder)}: RuntimeError: bad allocation in node MatMul"
        for name in named
    ]
    assert "2 of 4 pairs left out" in log


def test_images_beyond_those_held_are_extracted_again_with_the_same_matches(
    model_folder, folder, monkeypatch
):
    pipeline = MatchPipeline(model_folder, "cpu", (320, 224))
    paths, pairs = find_images([folder]), [(0, 1), (1, 2), (2, 0), (0, 1), (1, 2), (2, 0)]
    monkeypatch.setattr(matching, "IMAGES_PER_RUN", 2)
    extract, extracted = pipeline.extract, []
    monkeypatch.setattr(
        pipeline, "extract", lambda images, *others: extracted.extend(images) or extract(images, *others)
    )
    results = []
    for most_held, extractions in ((1, 7), (2, 6), (3, 3)):
        matcher = matching.FileMatcher(pipeline, paths, None, most_held=most_held)
        results.append([pair.matches.indices1.tolist() for pair in matcher.match(pairs)])
        assert len(extracted) == extractions
        extracted.clear()
    assert results[0] == results[1] == results[2]


def test_a_reader_that_has_enough_ends_the_run_without_a_word(sequence):
    with start(sequence, *QUICK) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 128 + signal.SIGPIPE


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_stopped_at_a_random_moment_leaves_whole_files_or_none(sequence, tmp_path, number):
    pytest.importorskip("h5py", reason=NO_H5PY)
    words = words_for(tmp_path, "json", "npz", "h5")
    lines = random.randint(1, IMAGES - 3)
    print("stopped after line", lines)
    with start(sequence, *QUICK, *words) as process:
        for _ in range(lines):
            process.stdout.readline()
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode in (130, -number, 1)  # 1: it was done before the signal came
    left = [path for path in files_of(tmp_path) if path.suffix != ".part"]
    assert all(read_whole(file) in (48, IMAGES - 1) for file in left)
    if number != signal.SIGKILL:
        assert len(left) in (0, 5)
        assert left == files_of(tmp_path)
    with start(*list(sequence.glob("[12].jpg")), *QUICK, *words) as process:
        assert process.wait(timeout=60) == 0, process.stderr.read()
    found = {path.name: read_whole(path) for path in files_of(tmp_path)}
    assert found == {"features.h5": 2, "matches.h5": 1, "pairs.txt": 1, "json": 1, "npz": 1}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "none", folder], capture_output=True
    ).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("kinds", [["json"], ["npz"], ["h5"], ["json", "npz", "h5"]], ids=" ".join)
def test_a_full_disk_is_named_and_leaves_no_part_of_a_file(sequence, small_disk, kinds):
    pytest.importorskip("h5py", reason=NO_H5PY)
    with start(sequence, *QUICK, *words_for(small_disk, *kinds)) as process:
        _, log = process.communicate(timeout=120)
    assert process.returncode == 1
    assert f"error: cannot write {small_disk}/" in log
    assert "No space left on device" in log
    assert "Traceback" not in log
    assert not files_of(small_disk)


@pytest.mark.parametrize("kind", ["json", "npz", "h5"])
def test_a_file_that_cannot_grow_leaves_the_one_of_an_earlier_run(sequence, tmp_path, kind):
    pytest.importorskip("h5py", reason=NO_H5PY)
    old = tmp_path / kind
    if kind == "h5":
        old.mkdir()
        old /= "features.h5"
    old.write_text("earlier")

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    with start(sequence, *QUICK, *words_for(tmp_path, kind), preexec_fn=limit) as process:
        _, log = process.communicate(timeout=120)
    assert process.returncode == 1
    assert f"error: cannot write {old}: File too large" in log
    assert old.read_text() == "earlier"
    assert files_of(tmp_path) == [old]
