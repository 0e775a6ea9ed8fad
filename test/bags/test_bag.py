"""`lightglue_ros bag`, run as a user runs it, on bags of two cameras that are made here."""

import contextlib
import dataclasses
import itertools
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

rosbag2 = pytest.importorskip("rosbags.rosbag2", reason="no rosbags here (pip install rosbags)")
from rosbags.typesys import Stores, get_types_from_msg, get_typestore  # noqa: E402

from lightglue_ros.bags.work import Chunk, ChunkTask, PlanTask, Source, Worker, split_model  # noqa: E402
from lightglue_ros.cli import main  # noqa: E402
from lightglue_ros.core import ConfigError  # noqa: E402
from lightglue_ros.core.image_files import write_image  # noqa: E402
from lightglue_ros.rosdata.parameters import (  # noqa: E402
    SPECS,
    MatcherParameters,
    MatcherSettings,
    collect,
    read_file,
)

STORE = get_typestore(Stores.ROS2_JAZZY)
HEADER, TIME, IMAGE, JPEG, TEXT = (
    STORE.types[name]
    for name in (
        "std_msgs/msg/Header",
        "builtin_interfaces/msg/Time",
        "sensor_msgs/msg/Image",
        "sensor_msgs/msg/CompressedImage",
        "std_msgs/msg/String",
    )
)
CAMERAS = ("left", "right")
FRAMES = 200
BEGIN, PERIOD, DELAY = 1_600_000_000_000_000_000, 50_000_000, 5_000_000
SIZE = (120, 84)
# Small, so that a frame takes 10 ms; chunks are of 16 frames.
PARAMETERS = """
/**:
  ros__parameters:
    pairs: ["left:right", "left@-1:left"]
    image_width: 128
    image_height: 96
    max_keypoints: 48
    num_threads: 1
    provider: cpu
"""
DEADLINE = 120.0


def stamp_of(frame):
    return BEGIN + frame * PERIOD


def pictures(motorcycle, frame):
    """What both cameras see: crops of the motorcycle, another one in each frame. Grey [84, 120]."""
    x, y = 3 * (frame // 50), 2 * (frame % 50)
    crops = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[y : y + 400, x : x + 570] for image in motorcycle)
    return [cv2.resize(crop, SIZE, interpolation=cv2.INTER_AREA) for crop in crops]


def image_message(picture, camera, stamp, encoding="mono8"):
    header = HEADER(TIME(stamp // 10**9, stamp % 10**9), f"{camera}_optical")
    height, width = picture.shape
    return IMAGE(header, height, width, encoding, 0, width, picture.ravel())


def jpeg_message(picture, camera, stamp):
    header = HEADER(TIME(stamp // 10**9, stamp % 10**9), f"{camera}_optical")
    return JPEG(header, "jpeg", cv2.imencode(".jpg", picture)[1].ravel())


def write_bag(folder, storage, messages):
    """Record (topic, message, time in ns)."""
    with rosbag2.Writer(folder, version=9, storage_plugin=rosbag2.StoragePlugin[storage.upper()]) as writer:
        topics = {}
        for topic, message, time_ns in messages:
            kind = message.__msgtype__
            if topic not in topics:
                topics[topic] = writer.add_connection(topic, kind, typestore=STORE)
            writer.write(topics[topic], time_ns, STORE.serialize_cdr(message, kind))
    return folder


def stereo(motorcycle, make=image_message, frames=FRAMES, suffix=""):
    """A stereo camera and something else, recorded a little after the stamps."""
    for frame in range(frames):
        stamp = stamp_of(frame)
        for camera, picture in zip(CAMERAS, pictures(motorcycle, frame), strict=True):
            yield f"/{camera}/image_rect{suffix}", make(picture, camera, stamp), stamp + DELAY
        yield "/talk", TEXT(f"hello {frame}"), stamp + 2 * DELAY


def read_bag(folder):
    """All messages in their order: (topic, time, bytes)."""
    with rosbag2.Reader(folder) as reader:
        return [(connection.topic, time_ns, bytes(data)) for connection, time_ns, data in reader.messages()]


def matches_of(folder):
    """(time, bytes) of the messages on /matches."""
    return [(time_ns, data) for topic, time_ns, data in read_bag(folder) if topic == "/matches"]


def decoded_matches(folder):
    """The messages on /matches, read with nothing but the definitions that are in the bag."""
    store = get_typestore(Stores.EMPTY)
    with rosbag2.Reader(folder) as reader:
        (connection,) = (one for one in reader.connections if one.topic == "/matches")
        store.register(get_types_from_msg(connection.msgdef.data, connection.msgtype))
        return [
            store.deserialize_cdr(data, connection.msgtype) for _, _, data in reader.messages([connection])
        ]


@pytest.fixture(scope="module")
def parameters(tmp_path_factory):
    file = tmp_path_factory.mktemp("parameters") / "rig.yaml"
    file.write_text(PARAMETERS)
    return file


@pytest.fixture(scope="module")
def no_ros(tmp_path_factory):
    """A folder that hides ROS from Python."""
    folder = tmp_path_factory.mktemp("no_ros")
    for package in ("rclpy", "std_msgs", "sensor_msgs", "builtin_interfaces"):
        (folder / package).mkdir()
        (folder / package / "__init__.py").write_text(f"raise ImportError('no {package} here')")
    return folder


@pytest.fixture(scope="module")
def command(parameters, no_ros, model_folder):
    """The command line and the environment of `lightglue_ros bag`, on a machine without ROS."""

    def make(*arguments, params_file=parameters):
        words = [sys.executable, "-m", "lightglue_ros", "bag", *arguments, "--params-file", params_file]
        path = os.pathsep.join([str(no_ros), os.environ.get("PYTHONPATH", "")])
        return [str(word) for word in words], {**os.environ, "PYTHONPATH": path}

    return make


@pytest.fixture(scope="module")
def match_bag(command):
    def run(*arguments, **options):
        words, environment = command(*arguments, **options)
        return subprocess.run(
            words, env=environment, capture_output=True, text=True, timeout=DEADLINE, check=False
        )

    return run


@pytest.fixture(scope="module")
def recorded(motorcycle, tmp_path_factory):
    """The same drive in each storage, raw and compressed."""
    folder = tmp_path_factory.mktemp("recorded")
    bags = {}
    for storage in ("sqlite3", "mcap"):
        raw, compressed = folder / f"{storage}_raw", folder / f"{storage}_compressed"
        bags[storage, "raw"] = write_bag(raw, storage, stereo(motorcycle))
        bags[storage, "compressed"] = write_bag(
            compressed, storage, stereo(motorcycle, jpeg_message, suffix="/compressed")
        )
    return bags


@pytest.fixture(scope="module")
def matched(recorded, match_bag, tmp_path_factory):
    """The bags with matches of all the recorded ones."""
    folder = tmp_path_factory.mktemp("matched")
    for transport in ("raw", "compressed"):
        bags = [bag for (_, of), bag in recorded.items() if of == transport]
        done = match_bag(*bags, "-o", folder / transport, "-p", f"image_transport:={transport}")
        assert done.returncode == 0, done.stderr
        assert f"{2 * FRAMES} frames in" in done.stderr
        header, *rows = (line.split() for line in done.stdout.splitlines())
        assert header[:4] == ["bag", "frames", "pairs", "missing"]
        assert [row[1:4] for row in rows] == [[str(FRAMES), str(2 * FRAMES), "1"]] * 2
        assert sorted((folder / transport).iterdir()) == sorted(folder / transport / bag.name for bag in bags)
    return {of: folder / of[1] / bag.name for of, bag in recorded.items()}


@pytest.mark.parametrize("transport", ["raw", "compressed"])
def test_a_bag_has_the_matches_of_the_match_command(transport, matched, recorded, motorcycle, tmp_path):
    frames = (1, 60, FRAMES - 1)
    pairs = []
    for frame in frames:
        for name, of_frame in (("before", frame - 1), ("now", frame)):
            for camera, picture in zip(CAMERAS, pictures(motorcycle, of_frame), strict=True):
                if transport == "compressed":
                    jpeg = cv2.imencode(".jpg", picture)[1]
                    picture = cv2.imdecode(jpeg, cv2.IMREAD_UNCHANGED)
                write_image(tmp_path / f"{frame:03}_{name}_{camera}.png", np.stack([picture] * 3, 2))
        first = 2 * len(pairs)
        pairs += [f"{first + 2}:{first + 3}", f"{first}:{first + 2}"]
    options = ["--image-size", "128x96", "--max-keypoints", "48", "--provider", "cpu"]
    words = [sys.executable, "-m", "lightglue_ros", "match", tmp_path, "--npz", tmp_path / "m.npz"]
    done = subprocess.run(
        [str(word) for word in [*words, *options, "--pairs", ",".join(pairs)]],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = np.load(tmp_path / "m.npz")
    messages = decoded_matches(matched["sqlite3", transport])
    assert len(messages) == FRAMES
    for number, (frame, pair) in enumerate((frame, pair) for frame in frames for pair in (0, 1)):
        found, of_pair = messages[frame].pairs[pair], expected["pair_of_match"] == number
        assert np.count_nonzero(of_pair) > 5
        for name in ("scores", "indices0", "indices1"):
            np.testing.assert_allclose(getattr(found, name), expected[name][of_pair], atol=1e-5)
        for name in ("keypoints0", "keypoints1"):
            np.testing.assert_allclose(
                getattr(found, name).reshape(-1, 2), expected[name][of_pair], atol=1e-3
            )


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
@pytest.mark.parametrize("transport", ["raw", "compressed"])
def test_what_was_recorded_is_there_as_it_was_with_matches_at_their_times(
    storage, transport, matched, recorded
):
    before, after = read_bag(recorded[storage, transport]), read_bag(matched[storage, transport])
    assert [message for message in after if message[0] != "/matches"] == before
    assert [time_ns for _, time_ns, _ in after] == sorted(time_ns for _, time_ns, _ in after)
    # At the time at which the frame was whole, that of its last image.
    matches = matches_of(matched[storage, transport])
    assert [time_ns for time_ns, _ in matches] == [stamp_of(frame) + DELAY for frame in range(FRAMES)]
    other = {"sqlite3": "mcap", "mcap": "sqlite3"}[storage]
    assert matches == matches_of(matched[other, transport])


def test_messages_say_of_which_images_they_are(matched):
    messages = decoded_matches(matched["mcap", "raw"])
    for frame, message in enumerate(messages):
        assert (message.header.frame_id, message.model) == ("left_optical", "xfeat")
        assert message.header.stamp.sec * 10**9 + message.header.stamp.nanosec == stamp_of(frame)
        pair, through_time = message.pairs
        assert (pair.status, through_time.status) == (0, 0 if frame else through_time.STATUS_MISSING)
        assert (pair.camera0, pair.camera1, pair.frame_id1) == ("left", "right", "right_optical")
        assert (pair.width0, pair.height0, pair.width1, pair.height1) == (*SIZE, *SIZE)
        past = stamp_of(frame - 1) if frame else 0
        assert through_time.stamp0.sec * 10**9 + through_time.stamp0.nanosec == past


def test_a_reader_that_knows_only_the_file_reads_the_matches(matched):
    pytest.importorskip("mcap_ros2", reason="no mcap-ros2-support here (pip install mcap-ros2-support)")
    from mcap.reader import make_reader
    from mcap_ros2.decoder import DecoderFactory

    (file,) = matched["mcap", "raw"].glob("*.mcap")
    with file.open("rb") as stream:
        reader = make_reader(stream, decoder_factories=[DecoderFactory()])
        read = [one.decoded_message for one in reader.iter_decoded_messages(topics=["/matches"])]
    expected = decoded_matches(matched["mcap", "raw"])
    assert len(read) == FRAMES
    for found, message in zip(read, expected, strict=True):
        assert list(found.pairs[0].keypoints1) == message.pairs[0].keypoints1.tolist()
        assert found.pairs[1].status == message.pairs[1].status


def test_twice_is_the_same_and_an_output_that_is_done_is_left_alone(matched, recorded, match_bag, tmp_path):
    arguments = (recorded["mcap", "raw"], "-o", tmp_path / "again", "--matches-only", "--storage", "sqlite3")
    assert match_bag(*arguments).returncode == 0
    assert read_bag(tmp_path / "again") == [("/matches", *one) for one in matches_of(matched["mcap", "raw"])]
    (file,) = (tmp_path / "again").glob("*.db3")
    before = file.stat().st_mtime_ns
    done = match_bag(*arguments)
    assert done.returncode == 0
    assert "is done already" in done.stderr
    assert file.stat().st_mtime_ns == before
    assert done.stdout.splitlines()[1].split()[1] == str(FRAMES)
    refused = match_bag(*arguments, "-p", "match_threshold:=0.5")
    assert refused.returncode == 1
    assert "exists, and was not made of bag" in refused.stderr


def wait_for(process, condition, what):
    """Whether the condition came to hold; False if the process ended before."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.002)
    return True


def descendants(process):
    """Process ids and command lines below a process."""
    found = {}
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{process}/task").iterdir():
            for child in (task / "children").read_text().split():
                found[int(child)] = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
                found |= descendants(int(child))
    return found


def test_killed_five_times_and_resumed_nothing_is_lost_or_twice(
    matched, recorded, command, match_bag, tmp_path
):
    output, part = tmp_path / "out", tmp_path / "out.part"
    arguments = (recorded["mcap", "raw"], "-o", output)
    chunks = random.sample(range(1, 12), 3)
    moments = [
        ("it has begun", lambda: (part / "job.json").exists()),
        *[
            (f"{count} chunks", lambda count=count: len(list(part.glob("frames-*[0-9]"))) >= count)
            for count in sorted(chunks)
        ],
        ("the output", lambda: (part / "output").exists()),
    ]
    for number, (what, has_come) in enumerate(moments):
        words, environment = command(*arguments, "--jobs", 1 + number % 2)
        with subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL) as process:
            assert wait_for(process, has_come, what), f"it ended before {what}"
            workers = descendants(process.pid)
            process.kill()
        assert not output.exists()
        deadline = time.monotonic() + DEADLINE
        while any(Path(f"/proc/{worker}").exists() for worker in workers):
            assert time.monotonic() < deadline, "its workers live on"
            time.sleep(0.01)
    done = match_bag(*arguments)
    assert done.returncode == 0, done.stderr
    assert f"goes on, {FRAMES} of {FRAMES} frames are done already" in done.stderr
    assert read_bag(output) == read_bag(matched["mcap", "raw"])
    assert not part.exists()


def test_an_interrupt_says_how_to_go_on(recorded, command, match_bag, tmp_path):
    arguments = (recorded["mcap", "raw"], "-o", tmp_path / "out")
    words, environment = command(*arguments)
    with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True) as process:
        chunk = (tmp_path / "out.part").glob
        assert wait_for(process, lambda: any(chunk("frames-*[0-9]")), "a chunk")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "interrupted; the same command goes on from here"
    other = match_bag(*arguments, "-p", "match_threshold:=0.5")
    assert other.returncode == 1
    assert "was begun for another bag or with other settings" in other.stderr


@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_two_workers_of_which_one_is_killed_do_the_same(
    engine, matched, recorded, command, match_bag, tmp_path
):
    if engine == "ray":
        pytest.importorskip("ray", reason="no Ray here (pip install ray)")
    name = {"processes": "spawn_main", "ray": "ray::_do_here"}[engine]
    output, part = tmp_path / "out", tmp_path / "out.part"
    words, environment = command(recorded["sqlite3", "raw"], "-o", output, "--jobs", "2", "--engine", engine)
    errors = (tmp_path / "errors").open("w+")
    with subprocess.Popen(words, env=environment, stderr=errors, stdout=subprocess.DEVNULL) as process:
        workers = []

        def two_work():
            workers[:] = [child for child, line in descendants(process.pid).items() if name in line]
            return len(workers) == 2 and any(part.glob("frames-*[0-9]"))

        assert wait_for(process, two_work, "two workers"), errors.seek(0) or errors.read()
        os.kill(workers[0], signal.SIGKILL)
        process.wait(timeout=DEADLINE)
        left = descendants(process.pid)
    errors.seek(0)
    assert process.returncode == 0, errors.read()
    assert not left
    assert read_bag(output) == read_bag(matched["sqlite3", "raw"])


# Frames that need the past.


def test_a_frame_is_the_same_wherever_its_chunk_begins(motorcycle, model_folder, tmp_path):
    """With a camera that drops out, broken images, a slow camera, and time that is set back."""
    bag = write_bag(tmp_path / "bag", "mcap", eventful(motorcycle))
    pairs = ["left:right", "left@-3:left", "slow@-2:slow"]
    changes = {
        "cameras": ["left", "right", "slow"],
        "image_topics": ["left", "right", "slow"],
        "image_transport": "compressed",
        "pairs": pairs,
        "verification": "fundamental",
        "model": str(model_folder),
        "max_keypoints": 32,
        "image_width": 96,
        "image_height": 64,
        "camera_timeout": 0.2,
    }
    values = {field.name: SPECS[field.name].default for field in dataclasses.fields(MatcherParameters)}
    settings = MatcherSettings.of(collect(MatcherParameters, values | changes))
    source = Source(bag, settings, split_model(str(model_folder))[1], "a key")
    plan = Worker().do(PlanTask(source))
    file = tmp_path / "plan.npz"
    file.write_bytes(plan.to_bytes())
    assert len(set(plan.epochs.tolist())) == 2
    assert plan.between.any()
    assert (plan.image_times < 0)[~plan.between].any()

    def chunk(worker, first, last):
        return worker.do(ChunkTask(source, file, first, last, 1))

    whole = chunk(Worker(), 0, len(plan))
    assert whole.rejected == {"broken_jpeg": 6}
    assert len(whole.messages) == len(plan) - 2
    assert 0 < whole.counts["missing"] < whole.counts["pairs"]
    worker, begin = Worker(), {}
    bounds = [*range(0, len(plan), 5), len(plan)]
    for first, last in reversed(list(itertools.pairwise(bounds))):
        begin[first] = chunk(worker, first, last)
    found = [begin[first] for first in sorted(begin)]
    assert [message for of in found for message in of.messages] == whole.messages
    for name in ("missing", "matches"):
        assert sum(of.counts[name] for of in found) == whole.counts[name]
    assert Chunk.from_bytes(whole.to_bytes()) == whole


def eventful(motorcycle):
    """Compressed images of two cameras and one that has every fourth, in two passes over the same stamps."""
    for number in range(80):
        stamp = stamp_of(number % 50)
        recorded = stamp_of(number) + DELAY
        left, right = pictures(motorcycle, number)
        for camera, picture in (("left", left), ("right", right), ("slow", right)):
            message = jpeg_message(picture, camera, stamp)
            is_lost = (camera == "right" and 20 <= number < 30) or (camera == "slow" and number % 4)
            is_broken = number in (14, 64) or (camera, number) == ("left", 41)
            if is_broken:
                # Its header is whole, so that only decoding tells.
                message.data = message.data[: len(message.data) // 3]
            if not is_lost:
                yield f"/{camera}/compressed", message, recorded


def test_matches_are_verified_with_the_camera_info_of_the_bag(motorcycle, match_bag, tmp_path):
    def messages(cameras):
        matrix = np.array([150.0, 0, 60, 0, 150, 42, 0, 0, 1])
        projection = np.insert(matrix.reshape(3, 3), 3, 0, axis=1).ravel()
        region = STORE.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
        for camera in cameras:
            info = STORE.types["sensor_msgs/msg/CameraInfo"](
                HEADER(TIME(0, 0), camera), SIZE[1], SIZE[0], "plumb_bob", np.zeros(5), matrix,
                np.eye(3).ravel(), projection, 0, 0, region,
            )  # fmt: skip
            yield f"/{camera}/camera_info", info, BEGIN + 2 * PERIOD
        yield from stereo(motorcycle, frames=20)

    def verified(cameras):
        bag = write_bag(tmp_path / f"bag_{len(cameras)}", "mcap", messages(cameras))
        output = tmp_path / f"out_{len(cameras)}"
        done = match_bag(bag, "-o", output, "-p", "verification:=essential")
        assert done.returncode == 0, done.stderr
        return done, decoded_matches(output)

    done, found = verified(CAMERAS)
    assert "not verified" not in done.stderr
    for message in found[1:]:
        for pair in message.pairs:
            assert pair.verification == pair.VERIFICATION_ESSENTIAL
            assert len(pair.inliers) == len(pair.scores)
    assert sum(pair.inliers.sum() for message in found for pair in message.pairs) > 20
    done, found = verified(CAMERAS[:1])
    assert (
        "camera right: its pairs are not verified, for there is no sensor_msgs/msg/CameraInfo" in done.stderr
    )
    assert [pair.verification for pair in found[-1].pairs] == [0, 3]


# What is not as it should be.


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_a_bag_that_is_cut_is_matched_as_far_as_it_goes(storage, recorded, matched, match_bag, tmp_path):
    bag = tmp_path / "cut"
    shutil.copytree(recorded[storage, "raw"], bag)
    (file,) = (path for path in bag.iterdir() if path.suffix != ".yaml")
    os.truncate(file, file.stat().st_size // 2)
    done = match_bag(bag, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert f"bag {bag} has no proper end; reading as far as it can be read" in done.stderr
    found, whole = read_bag(tmp_path / "out"), read_bag(matched[storage, "raw"])
    assert len(whole) // 5 < len(found) < len(whole) * 3 // 5
    # At the very end a frame may be lost of which a message is there.
    assert found[:-4] == whole[: len(found) - 4]


def test_messages_in_the_journal_of_a_killed_recorder_are_matched(motorcycle, match_bag, tmp_path):
    whole = write_bag(tmp_path / "whole", "sqlite3", stereo(motorcycle, frames=20))
    bag = tmp_path / "killed"
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
    before = sorted((file.name, file.read_bytes()) for file in bag.iterdir())
    done = match_bag(bag, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert len(matches_of(tmp_path / "out")) == 20
    assert len(read_bag(tmp_path / "out")) == 4 * 20
    assert sorted((file.name, file.read_bytes()) for file in bag.iterdir()) == before


def test_cameras_that_are_not_in_the_bag_are_named_and_the_others_matched(recorded, match_bag, tmp_path):
    topics = "image_topics:=[/left/image_rect, /rear/image_rect]"
    done = match_bag(recorded["mcap", "raw"], "-o", tmp_path / "out", "-p", topics)
    assert done.returncode == 0, done.stderr
    assert "camera right is missing: there are no images (sensor_msgs/msg/Image) on /rear" in done.stderr
    messages = decoded_matches(tmp_path / "out")
    # From the first frame on: nobody waits for a camera that is not there.
    assert len(messages) == FRAMES
    for message in messages[1:]:
        stereo_pair, through_time = message.pairs
        assert (stereo_pair.status, through_time.status) == (stereo_pair.STATUS_MISSING, 0)
    assert len(through_time.scores) > 5


def test_images_that_cannot_be_used_are_counted_and_named_and_the_others_matched(
    motorcycle, match_bag, tmp_path
):
    messages = list(stereo(motorcycle, frames=40))
    for number, (topic, message, _) in enumerate(messages):
        if topic == "/right/image_rect" and number < 30:
            message.encoding = "odd"
    messages.insert(4, ("/talk", TEXT("hello"), messages[4][2]))
    bag = write_bag(tmp_path / "bag", "mcap", messages)
    done = match_bag(bag, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "camera right: image has the encoding 'odd'; allowed: mono8" in done.stderr
    assert "dropped (unknown_encoding, 10 images)" in done.stderr
    assert "10 of 80" in done.stdout
    assert len(decoded_matches(tmp_path / "out")) == 30


def without_images(motorcycle):
    yield from [("/talk", TEXT("hello"), BEGIN)]


def short(motorcycle):
    return stereo(motorcycle, frames=3)


def unknown_encoding(motorcycle):
    for topic, message, time_ns in stereo(motorcycle, frames=3):
        if topic != "/talk":
            message.encoding = "odd"
        yield topic, message, time_ns


@pytest.mark.parametrize(
    ("messages", "arguments", "says"),
    [
        (without_images, [], "has no images (sensor_msgs/msg/Image) on /left/image_rect, /right/image_rect"),
        (without_images, [], "it has: /talk (std_msgs/msg/String)"),
        (unknown_encoding, [], "has no frame to match; images: 3 on /left/image_rect, 3 on /right"),
        (unknown_encoding, [], "camera left: image has the encoding 'odd'"),
        (short, ["-p", "image_transport:=compressed"], "on /left/image_rect/compressed"),
        (short, ["-p", "sync_slop:=1"], "parameter sync_slop is 1; allowed: float from 0 to 10"),
        (short, ["-p", "pairs:=[left]"], "parameter pairs has 'left'"),
        (short, ["-p", "camera:=left"], "'camera:=left' sets no parameter"),
        (short, ["-p", "input:=features"], "a bag is matched by its images"),
        (short, ["-p", "model:=no/model"], "no model 'no/model'"),
        (short, ["--storage", "zip"], "--storage is 'zip'; allowed: sqlite3, mcap"),
        (short, ["--engine", "spark"], "engine 'spark' is unknown; allowed: processes, ray"),
    ],
)
def test_errors_are_one_line_and_leave_nothing_behind(
    messages, arguments, says, motorcycle, parameters, tmp_path, capsys
):
    bag = write_bag(tmp_path / "bag", "sqlite3", messages(motorcycle))
    words = ["bag", bag, "-o", tmp_path / "out", "--params-file", parameters, *arguments]
    assert main([str(word) for word in words]) == 1
    said = capsys.readouterr()
    assert says in said.err
    assert len(said.err.strip().splitlines()) == 1, said.err
    assert not said.out
    assert [path.name for path in tmp_path.iterdir()] == ["bag"]


def test_of_several_bags_those_that_can_be_are_matched(recorded, match_bag, motorcycle, tmp_path):
    good = write_bag(tmp_path / "good", "mcap", stereo(motorcycle, frames=5))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "bad_0.mcap").write_bytes(b"no bag")
    done = match_bag(tmp_path / "bad", good, tmp_path / "absent", "-o", tmp_path / "out")
    assert done.returncode == 1
    assert f"error: bag {tmp_path / 'bad'} cannot be read" in done.stderr
    assert f"error: there is no bag {tmp_path / 'absent'}" in done.stderr
    assert [row.split()[1] for row in done.stdout.splitlines()[1:]] == ["-", "5", "-"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good"]


def test_a_parameter_file_is_read_as_the_node_reads_it(tmp_path):
    file = tmp_path / "rig.yaml"
    file.write_text(
        """
/robot/viewer: {ros__parameters: {image_width: 64}}
/**: {ros__parameters: {image_width: 96, image_height: 96, rate: 5.0}}
robot: {matcher: {ros__parameters: {image_width: 128}}}
"""
    )
    values = read_file(file, ["image_height:=160", "cameras:=[a, b]"])
    assert (values.image_width, values.image_height, values.cameras) == (128, 160, ["a", "b"])
    assert values.match_threshold == 0.1
    for content, says in (
        ("a: [", "is no YAML"),
        ("viewer: {ros__parameters: {}}", "no parameters of the node"),
    ):
        file.write_text(content)
        with pytest.raises(ConfigError, match=says):
            read_file(file)


@pytest.mark.parametrize(
    ("absent", "arguments", "says"),
    [
        ("rosbags", [], "pip install rosbags"),
        ("ray", ["--engine", "ray"], "pip install 'ray"),
    ],
)
def test_what_is_not_installed_is_named(absent, arguments, says, recorded, command, tmp_path):
    (tmp_path / absent).mkdir()
    (tmp_path / absent / "__init__.py").write_text(f"raise ImportError('no {absent} here')")
    words, environment = command(recorded["mcap", "raw"], "-o", tmp_path / "out", *arguments)
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), environment["PYTHONPATH"]])
    done = subprocess.run(
        words, env=environment, capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert done.returncode == 1
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
