"""`lightglue_ros bag` on bags of two cameras that are made here."""

import os
import shutil
import sqlite3
import subprocess
import sys

import cv2
import numpy as np
import pytest
from gpus import has_gpu

pytest.importorskip("rosbags", reason="no rosbags here (pip install rosbags)")
from recordings import (
    BASELINE,
    BEGIN,
    CAMERAS,
    DELAY,
    FOCAL_LENGTH,
    FRAMES,
    PERIOD,
    STORE,
    TEXT,
    camera_info,
    decoded_matches,
    image_message,
    matches_of,
    pictures,
    read_bag,
    stamp_of,
    stereo,
    write_bag,
)

from lightglue_ros.core import MatchPipeline

CLOUD = "sensor_msgs/msg/PointCloud2"


def test_compressed_images_have_the_matches_of_match_pipeline(matched, motorcycle, model_folder):
    """nodes/test_recorded.py does the same for raw images."""
    pipeline = MatchPipeline(model_folder, "cpu", (128, 96), max_keypoints=48, num_threads=1)

    def seen(frame):
        jpegs = (cv2.imencode(".jpg", one)[1] for one in pictures(motorcycle, frame))
        return [cv2.imdecode(jpeg, cv2.IMREAD_UNCHANGED) for jpeg in jpegs]

    messages = decoded_matches(matched["compressed"])
    assert len(messages) == FRAMES
    for frame in (1, 30, FRAMES - 1):
        expected = pipeline.match([*seen(frame), seen(frame - 1)[0]], [(0, 1), (2, 0)])
        for found, pair in zip(messages[frame].pairs, expected, strict=True):
            assert len(pair) > 5
            for name in ("keypoints0", "keypoints1", "scores", "indices0", "indices1"):
                ours, theirs = (getattr(matches, name).ravel() for matches in (found, pair))
                np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_what_was_recorded_is_there_as_it_was_with_matches_at_their_times(matched, recorded):
    for kind, folder in matched.items():
        before, after = read_bag(recorded[kind]), read_bag(folder)
        assert [message for message in after if message[0] not in ("/matches", "/tracks")] == before
        assert [time_ns for _, time_ns, _ in after] == sorted(time_ns for _, time_ns, _ in after)
        # At the time at which the frame was whole, that of its last image.
        times = [time_ns for time_ns, _ in matches_of(folder)]
        assert times == [stamp_of(frame) + DELAY for frame in range(FRAMES)]
    assert matches_of(matched["sqlite3"]) == matches_of(matched["mcap"])


def test_twice_is_the_same_and_an_output_that_is_done_is_left_alone(matched, recorded, match_here, tmp_path):
    output = tmp_path / "again"
    arguments = (recorded["mcap"], "-o", output, "--matches-only", "--storage", "sqlite3")
    assert match_here(*arguments)[0] == 0
    whole = read_bag(matched["mcap"])
    assert read_bag(output) == [one for one in whole if one[0] in ("/matches", "/tracks")]
    (file,) = output.glob("*.db3")
    before = file.stat().st_mtime_ns
    left_over = tmp_path / "again.part"
    left_over.mkdir()
    status, out, said = match_here(*arguments)
    assert (status, out.splitlines()[1].split()[1]) == (0, str(FRAMES))
    assert f"{output} is done already" in said
    assert file.stat().st_mtime_ns == before
    assert not left_over.exists()
    status, _, said = match_here(*arguments, "-p", "match_threshold:=0.5")
    assert status == 1
    assert "exists, and was not made of bag" in said


def test_matches_are_verified_and_give_points_with_the_camera_info_of_the_bag(
    motorcycle, match_here, tmp_path
):
    def messages(cameras):
        for camera in cameras:
            yield f"/{camera}/camera_info", camera_info(camera), BEGIN + 2 * PERIOD
        yield "/right/camera_info", ("sensor_msgs/msg/CameraInfo", b"\0\1\0\0"), BEGIN + 2 * PERIOD
        yield from stereo(motorcycle, frames=20)

    cameras = {"all": CAMERAS, "one": CAMERAS[:1]}
    bags = [write_bag(tmp_path / name, "mcap", messages(those)) for name, those in cameras.items()]
    status, out, said = match_here(
        *bags, "-o", tmp_path / "out", "-p", "verification:=essential", "-p", "publish_points:=true"
    )
    # A message of CameraInfo was left out.
    assert status == 1
    assert out.count("not verified") == 1
    unknown = "camera right: nothing has come on /right/camera_info yet"
    assert f"one: pair left:right is not verified in 20 frames: {unknown}" in out
    assert said.count("broken sensor_msgs/msg/CameraInfo on /right/camera_info dropped") == 2
    found = decoded_matches(tmp_path / "out" / "all")
    for message in found[1:]:
        for pair in message.pairs:
            assert pair.verification == pair.VERIFICATION_ESSENTIAL
            assert len(pair.inliers) == len(pair.scores)
    assert sum(pair.inliers.sum() for message in found for pair in message.pairs) > 20
    assert_points_are_those_of_the_matches(tmp_path / "out" / "all", found)
    assert "no points of left:right: camera right: nothing has come" in out
    found = decoded_matches(tmp_path / "out" / "one")
    assert [pair.verification for pair in found[-1].pairs] == [0, 3]


def test_a_camera_on_its_head_is_found_in_a_bag_and_matched_as_if_it_were_given(
    motorcycle, match_here, tmp_path
):
    def mounted(picture, camera, stamp):
        return image_message(picture[::-1, ::-1].copy() if camera == "right" else picture, camera, stamp)

    bag = write_bag(tmp_path / "bag", "mcap", stereo(motorcycle, mounted, frames=4))
    found = []
    for right in ("auto", "180"):
        words = (f'camera_rotations:=["0", "{right}"]', "image_width:=320", "image_height:=224")
        options = [word for each in (*words, "max_keypoints:=200") for word in ("-p", each)]
        status, out, said = match_here(bag, "-o", tmp_path / right, *options)
        assert status == 0, said
        assert ("rotations in degrees: left 0, right 180" in out + said) == (right == "auto")
        found.append(read_bag(tmp_path / right))
    assert found[0] == found[1]
    matches = decoded_matches(tmp_path / "auto")
    assert np.median([len(message.pairs[0].scores) for message in matches]) > 20


def stamp_of_header(header):
    return header.stamp.sec, header.stamp.nanosec, header.frame_id


def assert_points_are_those_of_the_matches(bag, matches):
    clouds = [STORE.deserialize_cdr(data, CLOUD) for topic, _, data in read_bag(bag) if topic == "/points"]
    stamps = [[stamp_of_header(it.header) for it in of_all] for of_all in (clouds, matches)]
    assert stamps[0] == stamps[1]
    for cloud, message in zip(clouds, matches, strict=True):
        names = [field.name for field in cloud.fields]
        assert names == ["x", "y", "z", "z_std", "id", "rgb"]
        points = cloud.data.view(np.dtype([(name, "<u4" if name == "id" else "<f4") for name in names]))
        pair = message.pairs[0]
        rows = np.searchsorted(pair.indices0, points["id"])
        left, right = (keypoints.reshape(-1, 2)[rows] for keypoints in (pair.keypoints0, pair.keypoints1))
        depths = FOCAL_LENGTH * BASELINE / (left[:, 0] - right[:, 0])
        np.testing.assert_allclose(points["z"], depths, rtol=1e-4)
        assert pair.inliers[rows].all()
        assert (points["z_std"] > 0).all()
    assert sum(cloud.width for cloud in clouds) > 20


# Bags that are not as they should be.


def test_of_several_bags_those_that_can_be_are_matched_as_far_as_they_go(
    recorded, matched, motorcycle, match_here, tmp_path
):
    cut = {storage: tmp_path / f"cut_{storage}" for storage in ("sqlite3", "mcap")}
    for storage, bag in cut.items():
        shutil.copytree(recorded[storage], bag)
        (file,) = (path for path in bag.iterdir() if path.suffix != ".yaml")
        os.truncate(file, file.stat().st_size * 9 // 10)
    bad, absent, killed = tmp_path / "bad.mcap", tmp_path / "absent", killed_recorder(motorcycle, tmp_path)
    bad.write_bytes(b"no bag")
    before = sorted((file.name, file.read_bytes()) for file in killed.iterdir())
    status, out, said = match_here(*cut.values(), bad, absent, killed, "-o", tmp_path / "out")
    assert status == 1
    assert "sqlite3.db3: its end is missing" in out
    assert "mcap.mcap: cannot be read from byte" in out
    assert f"error: bag {bad} cannot be read" in said
    assert f"error: there is no bag {absent}" in said
    assert [row.split()[1] for row in out.splitlines()[3:6]] == ["-", "-", "20"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"cut_sqlite3", "cut_mcap", "killed"}
    for storage, bag in cut.items():
        found, whole = read_bag(tmp_path / "out" / bag.name), read_bag(matched[storage])
        assert len(whole) // 5 < len(found) < len(whole) * 9 // 10
        # At the very end a frame may be lost of which a message is there.
        assert found[:-4] == whole[: len(found) - 4]
    assert len(read_bag(tmp_path / "out" / "killed")) == 5 * 20
    assert sorted((file.name, file.read_bytes()) for file in killed.iterdir()) == before


def killed_recorder(motorcycle, folder):
    """A bag of 20 frames without metadata.yaml whose second half is in the journal of its database."""
    whole = write_bag(folder / "whole", "sqlite3", stereo(motorcycle, frames=20))
    bag = folder / "killed"
    bag.mkdir()
    database = sqlite3.connect(whole / "whole.db3")
    half = "FROM messages WHERE timestamp >= (SELECT avg(timestamp) FROM messages)"
    rows = database.execute(f"SELECT * {half}").fetchall()
    database.execute(f"DELETE {half}")
    database.commit()
    database.execute("PRAGMA journal_mode = WAL")
    database.executemany("INSERT INTO messages VALUES (?, ?, ?, ?)", rows)
    database.commit()
    for file in whole.glob("*.db3*"):
        shutil.copy(file, bag)
    database.close()
    return bag


def test_cameras_that_are_not_in_the_bag_are_named_and_the_others_matched(motorcycle, match_here, tmp_path):
    bag = write_bag(tmp_path / "bag", "mcap", stereo(motorcycle, frames=20))
    topics = "image_topics:=[/left/image_rect, /rear/image_rect]"
    status, _, said = match_here(bag, "-o", tmp_path / "out", "-p", topics)
    assert status == 0, said
    assert "camera right is missing in 20 frames: there are no images on /rear/image_rect" in said
    messages = decoded_matches(tmp_path / "out")
    # From the first frame on: nobody waits for a camera that is not there.
    assert len(messages) == 20
    for message in messages[1:]:
        stereo_pair, through_time = message.pairs
        assert (stereo_pair.status, through_time.status) == (stereo_pair.STATUS_MISSING, 0)
    assert len(through_time.scores) > 5


def test_images_that_cannot_be_used_are_counted_and_named_and_the_others_matched(
    motorcycle, match_here, tmp_path
):
    messages = list(stereo(motorcycle, frames=40))
    for number, (topic, message, _) in enumerate(messages):
        if topic == "/right/image_rect" and number < 30:
            message.encoding = "odd"
    messages.insert(4, ("/talk", TEXT("hello"), messages[4][2]))
    bag = write_bag(tmp_path / "bag", "mcap", messages)
    status, out, said = match_here(bag, "-o", tmp_path / "out")
    # Something was left out.
    assert status == 1, said
    assert (
        "camera right: 10 images rejected (unknown_encoding), such as: image has the encoding 'odd'" in said
    )
    assert "10 of 80" in out
    # The left camera has pairs of its own.
    assert len(decoded_matches(tmp_path / "out")) == 40


NO_IMAGES = "has no images on /left/image_rect, /right/image_rect"
NO_FRAMES = (
    "has no frame to match; images: 3 on /left/image_rect, 3 on /right/image_rect; camera left, right: 6"
)


@pytest.mark.parametrize(
    ("bag", "arguments", "says"),
    [
        ("without images", [], [NO_IMAGES, "it has: /talk (std_msgs/msg/String)"]),
        ("odd", [], [NO_FRAMES, "the encoding 'odd'"]),
        ("short", ["-p", "sync_slop:=11"], ["parameter sync_slop is 11.0; allowed: double from 0 to 10"]),
        ("short", ["-p", "pairs:=[left]"], ["parameter pairs has 'left'"]),
        ("short", ["-p", "camera:=left"], ["'camera:=left' sets no parameter"]),
        ("short", ["-p", "input:=features"], ["a bag is matched by its images"]),
        ("short", ["-p", "model:=no/model"], ["no model 'no/model'"]),
        ("short", ["--storage", "zip"], ["--storage is 'zip'; allowed: sqlite3, mcap"]),
        ("short", ["--engine", "spark"], ["engine 'spark' is unknown; allowed: processes, ray"]),
    ],
)
def test_errors_are_one_line_and_leave_nothing_behind(bag, arguments, says, motorcycle, match_here, tmp_path):
    messages = list(stereo(motorcycle, frames=3))
    if bag == "without images":
        messages = [one for one in messages if one[0] == "/talk"]
    for topic, message, _ in messages if bag == "odd" else []:
        if topic != "/talk":
            message.encoding = "odd"
    folder = write_bag(tmp_path / "bag", "sqlite3", messages)
    status, out, said = match_here(folder, "-o", tmp_path / "out", *arguments)
    assert (status, out) == (1, "")
    for text in says:
        assert text in said
    assert len(said.strip().splitlines()) == 1, said
    assert [path.name for path in tmp_path.iterdir()] == ["bag"]


def test_missing_packages_are_named(command, match_here, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    status, _, said = match_here(tmp_path, "-o", tmp_path / "out", "--engine", "ray")
    assert (status, "pip install 'ray" in said, len(said.splitlines())) == (1, True, 1)
    (tmp_path / "rosbags").mkdir()
    (tmp_path / "rosbags" / "__init__.py").write_text("raise ImportError('no rosbags here')")
    words, environment = command(tmp_path, "-o", tmp_path / "out")
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), environment["PYTHONPATH"]])
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, "pip install rosbags" in done.stderr) == (1, True)
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(has_gpu(), reason="there is an NVIDIA GPU here")
def test_the_reason_why_the_cpu_matched_a_bag_is_said_once(recorded, match_here, tmp_path):
    gpu = ("-p", "provider:=cuda", "-p", "allow_fallback:=true")
    status, said, _ = match_here(recorded["mcap"], "-o", tmp_path / "out", *gpu)
    assert status == 0
    (line,) = (line for line in said.splitlines() if "the model runs on cpu" in line)
    assert line.startswith(f"bag {recorded['mcap']}: the model runs on cpu: ")
