"""Bags, images and frames that cannot be matched are named with their cause, and the others are matched."""

import json
import os
import pickle
import shutil

import pytest

pytest.importorskip("rosbags", reason="no rosbags here (pip install rosbags)")
from recordings import (
    BEGIN,
    CAMERAS,
    DELAY,
    STORE,
    camera_info,
    decoded_matches,
    image_message,
    jpeg_message,
    matches_of,
    read_bag,
    stamp_of,
    stereo,
    write_bag,
)
from rosbags import rosbag2

from lightglue_ros.bags import chunks
from lightglue_ros.bags.chunks import ChunkMatcher, ChunkSource
from lightglue_ros.bags.frame_index import build_frame_index
from lightglue_ros.core.files import write_whole
from lightglue_ros.rig.extracted_references import ExtractedReferences
from lightglue_ros.rosdata.parameters import MatcherParameters

ESSENTIAL = ("-p", "verification:=essential")


def images(motorcycle, frames=6, make=image_message, shift=0, suffix=""):
    """(topic, message, time) of both cameras; the stamps of the right one are ahead by `shift` ns."""
    for row in stereo(motorcycle, make, frames, suffix):
        if row[0] == "/talk":
            continue
        if "right" in row[0]:
            stamp = row[2] - DELAY + shift
            row[1].header.stamp.sec, row[1].header.stamp.nanosec = divmod(stamp, 10**9)
        yield row


def cut_jpeg(picture, camera, stamp):
    message = jpeg_message(picture, camera, stamp)
    message.data = message.data[: len(message.data) // 2]
    return message


def odd_image(picture, camera, stamp):
    message = image_message(picture, camera, stamp)
    message.encoding = "odd"
    return message


def broken_bags(folder, motorcycle):
    """Seven bags that cannot be matched, and what is said about each."""
    (folder / "empty").mkdir()
    (folder / "noise.db3").write_bytes(b"no bag")
    (folder / "ros1.bag").write_bytes(b"#ROSBAG V2.0\n")
    write_bag(folder / "talk", "mcap", [row for row in stereo(motorcycle, frames=2) if row[0] == "/talk"])
    cut = images(motorcycle, 2, cut_jpeg, suffix="/compressed")
    write_bag(folder / "cut", "mcap", cut)
    write_bag(folder / "odd", "mcap", images(motorcycle, 2, odd_image))
    return {
        "absent": "there is no bag",
        "empty": "there is no bag",
        "noise.db3": "is no database of rosbag2",
        "ros1.bag": "is a ROS 1 bag",
        "talk": "has no images on /left/image_rect, /right/image_rect",
        "cut": "none of its frames can be matched; camera left, right: 4 images rejected (broken_jpeg)",
        "odd": "images: 2 on /left/image_rect, 2 on /right/image_rect; camera left, right: 4 images rejected",
    }


@pytest.mark.parametrize("engine", ["processes", "two processes", "ray"])
def test_bags_that_cannot_be_matched_are_named_and_the_others_are_matched(
    engine, motorcycle, match_here, tmp_path
):
    if engine == "ray":
        pytest.importorskip("ray", reason="no Ray here (pip install ray)")
    good = write_bag(tmp_path / "good", "sqlite3", stereo(motorcycle, frames=2))
    others = [shutil.copytree(good, tmp_path / name) for name in ("good_2", "good_10")]
    broken = broken_bags(tmp_path, motorcycle)
    bags = [good, others[0], *(tmp_path / name for name in broken), others[1]]
    how = {"processes": (), "two processes": ("--jobs", 2), "ray": ("--engine", "ray", "--jobs", 2)}[engine]
    arguments = (*bags, "-o", tmp_path / "out", "--json", tmp_path / "out.json", *how)
    status, out, said = match_here(*arguments)
    assert status == 1
    for name, text in broken.items():
        assert [text in line for line in said.splitlines() if f"/{name}" in line] == [True], (name, said)
    assert [row.split()[1] for row in out.splitlines()[1:11]] == ["2", "2", *"-------", "2"]
    errors = [one["error"] for one in json.loads((tmp_path / "out.json").read_text())]
    assert [bool(error) for error in errors] == [False] * 2 + [True] * 7 + [False]
    whole = [read_bag(tmp_path / "out" / name) for name in ("good", "good_2", "good_10")]
    assert whole[0] == whole[1] == whole[2]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"good", "good_2", "good_10"}
    # The same command says the same again.
    assert match_here(*arguments)[0] == 1


def test_what_was_left_out_is_in_the_summary_and_in_the_json(motorcycle, match_here, tmp_path):
    rows = [*images(motorcycle, 20)]
    for number in (7, 9):
        rows[number][1].encoding = "odd"
    uncalibrated = camera_info("left")
    uncalibrated.p[:] = 0
    rows += [("/left/camera_info", uncalibrated, BEGIN), ("/right/camera_info", camera_info("right"), BEGIN)]
    # The right camera is silent at the end.
    rows = [row for row in rows if "right/image" not in row[0] or row[2] < stamp_of(12)]
    bag = write_bag(tmp_path / "bag", "mcap", rows)
    more = (*ESSENTIAL, "-p", "camera_timeout:=0.1", "-p", "pairs:=['left:right', 'left@-1:left']")
    status, out, _ = match_here(bag, "-o", tmp_path / "out", "--json", tmp_path / "json", *more)
    assert status == 1
    lines = [
        "camera right: 2 images rejected (unknown_encoding), such as: image has the encoding 'odd'",
        "camera right is missing in ",
        "pair left:right is not verified in ",
        "frames: camera left: /left/camera_info has P without focal lengths: the camera is not calibrated",
    ]
    for line in lines:
        assert line in out
    (about,) = json.loads((tmp_path / "json").read_text())
    assert about["bags"] == [str(bag)]
    assert about["output"] == str(tmp_path / "out")
    assert (about["error"], about["images"]) == ("", 32)
    found = {(one["kind"], one["about"]): one for one in about["findings"]}
    assert {kind for kind, _ in found} == {"rejected", "missing", "unverified", "note"}
    assert found["rejected", "right"]["count"] == 2
    assert found["rejected", "right"]["cause"] == "unknown_encoding"
    assert "no usable image came within camera_timeout (0.1 s)" in found["missing", "right"]["cause"]


@pytest.mark.parametrize(
    ("shift", "arguments", "says"),
    [
        (20_000_000, ["sync_slop:=0.001"], "its stamps are not within sync_slop, 0.001 s, of left's"),
        (3600 * 10**9, [], "camera right: its stamps are 3600.0 s ahead of left's; fix: the clock"),
    ],
)
def test_the_slop_is_named_only_if_a_larger_one_helps(
    shift, arguments, says, motorcycle, match_here, tmp_path
):
    bag = write_bag(tmp_path / "bag", "mcap", images(motorcycle, 20, shift=shift))
    never = ("-p", "camera_timeout:=3600.0")
    more = [word for one in arguments for word in ("-p", one)]
    status, _, said = match_here(bag, "-o", tmp_path / "out", "-p", "pairs:=['left:right']", *never, *more)
    assert status == 1
    assert says in said
    if "sync_slop" in says:
        assert match_here(bag, "-o", tmp_path / "out", "-p", "sync_slop:=0.022")[0] == 0


def test_images_are_taken_by_their_stamps_however_they_were_recorded(motorcycle, match_here, tmp_path):
    rows = list(images(motorcycle, 24))
    left, right = ([row for row in rows if camera in row[0]] for camera in CAMERAS)
    hour = 3600 * 10**9
    orders = {
        "one_after_the_other": [*left, *((topic, message, time + hour) for topic, message, time in right)],
        "at_the_same_time": [(topic, message, BEGIN) for topic, message, _ in [*left, *right]],
        "left": left,
        "right": [(topic, message, time - hour) for topic, message, time in right],
    }
    bags = {name: write_bag(tmp_path / name, "sqlite3", rows) for name, rows in orders.items()}
    assert match_here(*list(bags.values())[:2], "-o", tmp_path / "out")[0] == 0
    together = (bags["left"], bags["right"], "--together", "-o", tmp_path / "together")
    assert match_here(*together)[0] == 0
    found = [
        decoded_matches(folder)
        for folder in (*(tmp_path / "out" / name for name in list(orders)[:2]), tmp_path / "together")
    ]
    for messages in found:
        assert [one.header.stamp.nanosec for one in messages] == [
            stamp_of(frame) % 10**9 for frame in range(24)
        ]
        assert all(one.pairs[0].status == 0 for one in messages)
        assert [one.pairs[0].scores.tobytes() for one in messages] == [
            one.pairs[0].scores.tobytes() for one in found[0]
        ]
    assert len(read_bag(tmp_path / "together")) == 4 * 24


def test_cameras_are_recorded_raw_or_compressed_on_any_topic(motorcycle, match_here, tmp_path):
    raw, compressed = (list(images(motorcycle, 4, make)) for make in (image_message, jpeg_message))
    mixed = [row for row in raw if "left" in row[0]]
    mixed += [(f"{topic}/compressed", *rest) for topic, *rest in compressed if "right" in topic]
    elsewhere = [(topic.replace("image_rect", "jpeg"), *rest) for topic, *rest in compressed]
    topics = ("-p", "image_topics:=[/left/jpeg, /right/jpeg]")
    for name, rows, more in (("mixed", mixed, ()), ("elsewhere", elsewhere, topics)):
        bag = write_bag(tmp_path / name, "mcap", rows)
        assert match_here(bag, "-o", tmp_path / f"{name}_out", *more)[0] == 0
        assert len(matches_of(tmp_path / f"{name}_out")) == 4


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_a_topic_without_messages_stands_for_no_other(motorcycle, match_here, storage, tmp_path):
    bag = tmp_path / "bag"
    kinds = {"": "sensor_msgs/msg/Image", "/compressed": "sensor_msgs/msg/CompressedImage"}
    with rosbag2.Writer(bag, version=9, storage_plugin=rosbag2.StoragePlugin[storage.upper()]) as writer:
        # As `ros2 bag record --all` does it where nobody publishes the raw images.
        connections = {
            f"/{camera}/image_rect{suffix}": writer.add_connection(
                f"/{camera}/image_rect{suffix}", kind, typestore=STORE
            )
            for suffix, kind in kinds.items()
            for camera in CAMERAS
        }
        for topic, message, time_ns in images(motorcycle, 4, jpeg_message, suffix="/compressed"):
            data = STORE.serialize_cdr(message, kinds["/compressed"])
            writer.write(connections[topic], time_ns, data)
    assert match_here(bag, "-o", tmp_path / "out")[0] == 0
    assert len(matches_of(tmp_path / "out")) == 4


@pytest.fixture
def matcher(motorcycle, model_folder, tmp_path):
    """Makes a matcher of chunks of a bag with 12 frames."""
    settings = MatcherParameters(
        pairs=["left:right", "left@-1:left"],
        model=str(model_folder),
        image_width=96,
        image_height=64,
        max_keypoints=32,
        num_threads=1,
    )
    pipeline = settings.load()

    def make(name="bag"):
        bag = write_bag(tmp_path / name, "sqlite3", stereo(motorcycle, frames=12))
        index = tmp_path / f"{name}.index"
        write_whole(index, pickle.dumps(build_frame_index((bag,), tmp_path, settings)))
        return ChunkMatcher(
            ChunkSource((bag,), tmp_path, index, settings, ""), pipeline, ExtractedReferences()
        )

    return make


def test_an_exception_in_a_frame_costs_that_frame_wherever_its_chunk_begins(matcher):
    matcher = matcher()
    process = matcher._processor.process

    def fail_at_two_frames(frame, settings):
        if frame.stamps[0] in (stamp_of(3), stamp_of(7)):
            raise RuntimeError("ORT_FAIL: out of memory")
        return process(frame, settings)

    whole = matcher.match(range(12)).messages
    matcher._processor.process = fail_at_two_frames
    rest = matcher.match(range(12))
    assert rest.messages == [one for number, one in enumerate(whole) if number not in (3, 7)]
    (finding,) = rest.tally.findings()
    assert str(finding) == "2 frames failed, such as: RuntimeError: ORT_FAIL: out of memory"
    assert finding.is_loss
    assert len(rest.tracebacks) == 1
    assert "fail_at_two_frames" in rest.tracebacks[0]
    parts = [matcher.match(range(first, first + 4)).messages for first in (8, 4, 0)]
    assert [*parts[2], *parts[1], *parts[0]] == rest.messages


def test_a_process_closes_a_bag_before_it_opens_the_next(matcher, monkeypatch):
    first = matcher()
    monkeypatch.setattr(chunks, "_last", first)
    sources = [matcher(f"bag_{number}").source for number in range(6)]
    first.match(range(2))
    before = len(os.listdir("/proc/self/fd"))
    for source in sources:
        chunks.match_chunk(source, range(2))
    assert len(os.listdir("/proc/self/fd")) <= before
    chunks._last.close()


def test_the_traceback_of_an_unexpected_error_is_logged_once(motorcycle, match_here, monkeypatch, tmp_path):
    bags = [write_bag(tmp_path / name, "mcap", stereo(motorcycle, frames=2)) for name in ("one", "two")]

    def fail(*_):
        raise KeyError("nobody foresaw this")

    monkeypatch.setattr("lightglue_ros.bags.bag_job.locked_work_folder", fail)
    status, _, said = match_here(*bags, "-o", tmp_path / "out")
    assert status == 1
    assert said.count("unexpected KeyError: 'nobody foresaw this'") == 2
    assert said.count("Traceback") == 1
