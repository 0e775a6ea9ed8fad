"""Bags of which a part is missing or damaged: the rest is read, and what is missing is named."""

import os
import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from bag_files import damage, split_bag, write_bag, write_mcap
from unusual_files import LFS_POINTER

from lightglue_ros.errors import ConfigError
from lightglue_ros.rosdata.bags import Bag
from lightglue_ros.rosdata.recording import BrokenBagError

TALK = "std_msgs/msg/String"
COUNT = 60


def message(number):
    """Random bytes of several pages of a database, after the number."""
    return b"\0\1\0\0" + bytes([number]) + random.Random(number).randbytes(20_000)


def messages(numbers=range(COUNT), topic="/talk"):
    return [(topic, TALK, message(number), 1000 + number) for number in numbers]


def read(*paths):
    """The numbers of the messages that can be read, and what is said about the rest."""
    with Bag(*paths) as bag:
        found = list(bag.messages_of(lambda topic: True))
        assert all(one.data == message(one.data[4]) for one in found)
        assert all(bag.read(one.place) == one.data for one in found)
        return [one.data[4] for one in found], bag.problems()


def change_metadata(bag, about):
    yaml = pytest.importorskip("yaml")
    metadata = yaml.safe_load((bag / "metadata.yaml").read_text())
    metadata["rosbag2_bagfile_information"] |= about
    (bag / "metadata.yaml").write_text(yaml.safe_dump(metadata))


def storage_file(bag):
    return next(path for path in bag.iterdir() if path.suffix != ".yaml")


@pytest.fixture
def database(tmp_path):
    return storage_file(write_bag(tmp_path / "database", "SQLITE3", messages()))


def test_a_damaged_chunk_costs_the_messages_in_it(tmp_path):
    schema = (TALK, "ros2msg", b"string data")
    rows = [("/talk", schema, "cdr", time_ns, data) for _, _, data, time_ns in messages()]
    file = write_mcap(tmp_path / "bag.mcap", rows, chunk_size=1)
    damage(file, file.stat().st_size // 2, 512)
    found, problems = read(file)
    assert len(found) == COUNT - 1
    (problem,) = problems
    assert "bag.mcap: 1 of 60 chunks cannot be read, the first at byte" in problem


def test_a_damaged_page_costs_the_messages_in_it(database):
    page = 4096
    content = database.read_bytes()
    # Pages of the message in the middle; the first of its pages but one holds nothing else.
    position = content.index(message(COUNT // 2)[6000:6100]) // page * page
    damage(database, position, page)
    found, problems = read(database)
    assert found == [number for number in range(COUNT) if number != COUNT // 2]
    assert problems == ["database.db3: 1 of 60 messages cannot be read (database disk image is malformed)"]
    # A leaf holds the beginnings of a few messages.
    position = content.index(message(10)[:100]) // page * page
    damage(database, position, page)
    found, problems = read(database)
    assert COUNT - 12 < len(found) < COUNT - 1
    assert f"database.db3: about {COUNT - 1 - len(found)} messages cannot be found" in problems[1]


def test_a_damaged_page_of_the_tree_costs_nothing(database):
    content = database.read_bytes()
    # The root holds nothing but the numbers of the leaves.
    roots = [page for page in range(2, 12) if content[4096 * page] == 5]
    damage(database, 4096 * roots[-1], 4096)
    found, problems = read(database)
    assert found == list(range(COUNT))
    (problem,) = problems
    assert "its index is damaged: after 60 messages some may be missing" in problem


@pytest.mark.parametrize("storage", ["SQLITE3", "MCAP"])
def test_a_bag_that_is_cut_is_read_up_to_there(tmp_path, storage):
    bag = write_bag(tmp_path / "bag", storage, messages(range(200)))
    file = storage_file(bag)
    size = file.stat().st_size
    for share in (0.9, 0.7):
        os.truncate(file, int(size * share))
        found, problems = read(bag)
        # The end of an MCAP file is lost with its chunk of 1 MiB.
        assert 200 * share - 60 < len(found) <= 200 * share
        assert found == list(range(len(found)))
        assert any("its end is missing" in line or "cannot be read from byte" in line for line in problems)


@pytest.mark.parametrize("storage", ["SQLITE3", "MCAP"])
def test_a_file_of_a_split_bag_that_is_missing_or_broken_is_named_and_the_others_are_read(tmp_path, storage):
    parts = [write_bag(tmp_path / f"part_{n}", storage, messages(range(9 * n, 9 * n + 9))) for n in range(3)]
    bag = split_bag(tmp_path / "bag", parts)
    assert read(bag) == (list(range(27)), [])
    suffix = {"SQLITE3": "db3", "MCAP": "mcap"}[storage]
    file = bag / f"part_1.{suffix}"
    damage(file, 0, 16)
    found, problems = read(bag)
    assert found == [*range(9), *range(18, 27)]
    assert problems[0].startswith(f"part_1.{suffix} cannot be read: ")
    file.unlink()
    (problem,) = read(bag)[1]
    assert f"part_1.{suffix} is missing, which metadata.yaml names (9 messages)" in problem
    (bag / "metadata.yaml").unlink()
    assert read(bag) == (found, [])


def test_a_renamed_file_is_read(tmp_path):
    bag = write_bag(tmp_path / "bag", "MCAP", messages())
    storage_file(bag).rename(bag / "other.mcap")
    with Bag(bag) as opened:
        assert opened.notes == ["bag.mcap, which metadata.yaml names, is missing; read instead: other.mcap"]
    assert read(bag) == (list(range(COUNT)), [])


@pytest.mark.parametrize(
    "about",
    [
        {"files": [{}]},
        {"files": ["bag.mcap"]},
        {"relative_file_paths": 5},
        {"relative_file_paths": "bag.mcap"},
        {"relative_file_paths": ["bag.mcap", "bag.mcap"]},
    ],
)
def test_metadata_with_mistakes_costs_nothing(tmp_path, about):
    bag = write_bag(tmp_path / "bag", "MCAP", messages())
    change_metadata(bag, about)
    assert read(bag) == (list(range(COUNT)), [])
    change_metadata(bag, {"relative_file_paths": ["bag.mcap", "late.mcap"]})
    assert read(bag) == (
        list(range(COUNT)),
        ["late.mcap is missing, which metadata.yaml names (unknown messages)"],
    )


def test_a_file_that_is_not_in_the_metadata_is_named_and_the_fix_reads_it(tmp_path):
    parts = [write_bag(tmp_path / f"part_{n}", "MCAP", messages(range(9 * n, 9 * n + 9))) for n in range(2)]
    bag = split_bag(tmp_path / "bag", parts)
    change_metadata(bag, {"relative_file_paths": ["part_0.mcap"]})
    found, (problem,) = read(bag)
    assert found == list(range(9))
    said = "part_1.mcap is not read, because metadata.yaml does not name it; fix: remove it, or metadata.yaml"
    assert problem == said
    (bag / "metadata.yaml").unlink()
    assert read(bag) == (list(range(18)), [])


def test_other_files_and_folders_next_to_those_of_a_bag_do_not_matter(tmp_path):
    bag = write_bag(tmp_path / "bag", "MCAP", messages())
    (bag / "notes.txt").write_text("sunny")
    (bag / "old.mcap").mkdir()
    # macOS leaves such a file next to each that it copies.
    (bag / "._bag.mcap").write_bytes(b"\0\5\x16\7")
    for _ in range(2):
        assert read(bag) == (list(range(COUNT)), [])
        (bag / "metadata.yaml").unlink(missing_ok=True)


def test_a_message_without_bytes_costs_that_message(database):
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE loose AS SELECT * FROM messages")
        connection.execute("DROP TABLE messages")
        connection.execute("ALTER TABLE loose RENAME TO messages")
        connection.execute("UPDATE messages SET data = NULL WHERE id = 3")
        connection.execute("UPDATE messages SET data = 'text' WHERE id = 5")
    found, problems = read(database)
    assert found == [number for number in range(COUNT) if number not in (2, 4)]
    assert "2 of 60 messages cannot be read" in problems[0]


@pytest.mark.parametrize("storage", ["SQLITE3", "MCAP"])
@pytest.mark.parametrize("mode", ["MESSAGE", "FILE"])
def test_compressed_bags_are_read_without_their_metadata(tmp_path, storage, mode):
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    bag = tmp_path / "bag"
    writer = Writer(bag, version=8, storage_plugin=StoragePlugin[storage])
    writer.set_compression(CompressionMode[mode], CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection("/talk", TALK, typestore=get_typestore(Stores.ROS2_JAZZY))
        for _, _, data, time_ns in messages(range(200)):
            writer.write(connection, time_ns, data)
    assert read(bag) == (list(range(200)), [])
    (bag / "metadata.yaml").unlink()
    assert read(bag) == (list(range(200)), [])
    file = storage_file(bag)
    os.truncate(file, file.stat().st_size * 9 // 10)
    found, problems = read(bag)
    assert 100 < len(found) < 200
    assert problems


@pytest.mark.parametrize("options", [{}, {"use_chunking": False}, {"index_types": None}, {"finish": False}])
def test_an_mcap_file_needs_neither_index_nor_chunks_nor_order(tmp_path, options):
    writer = pytest.importorskip("mcap.writer")
    if "index_types" in options:
        options = {"index_types": writer.IndexType.NONE, "repeat_channels": False, "repeat_schemas": False}
    schema = (TALK, "ros2msg", b"string data")
    rows = [("/talk", schema, "cdr", time_ns, data) for _, _, data, time_ns in messages()]
    # The left camera first, then the right one.
    file = write_mcap(tmp_path / "bag.mcap", rows[::2] + rows[1::2], chunk_size=100_000, **options)
    found, _ = read(file)
    assert found == list(range(COUNT))


def test_messages_between_the_chunks_of_an_mcap_file_are_read(tmp_path):
    mcap = pytest.importorskip("mcap.writer")
    from mcap.data_stream import RecordBuilder
    from mcap.records import Message

    file = tmp_path / "bag.mcap"
    with file.open("wb") as stream:
        writer = mcap.Writer(stream, chunk_size=1)
        writer.start("ros2")
        schema = writer.register_schema(TALK, "ros2msg", b"string data")
        channel = writer.register_channel("/talk", "cdr", schema)
        for _, _, data, time_ns in messages():
            if time_ns % 3:
                writer.add_message(channel, time_ns, data, time_ns)
            else:
                record = RecordBuilder()
                Message(channel, time_ns, data, time_ns, 0).write(record)
                stream.write(record.end())
        writer.finish()
    assert read(file) == (list(range(COUNT)), [])


@pytest.mark.parametrize("offset", [0, 3000])
def test_where_an_mcap_file_is_damaged_its_index_tells_where_it_goes_on(tmp_path, offset):
    schema = (TALK, "ros2msg", b"string data")
    rows = [("/talk", schema, "cdr", time_ns, data) for _, _, data, time_ns in messages()]
    file = write_mcap(tmp_path / "bag.mcap", rows, chunk_size=1)
    with file.open("rb") as stream:
        chunks = pytest.importorskip("mcap.reader").make_reader(stream).get_summary().chunk_indexes
    damage(file, chunks[20].chunk_start_offset + offset, 512)
    found, problems = read(file)
    assert found == [number for number in range(COUNT) if number != 20]
    assert len(problems) == 1
    with Bag(file) as bag:
        assert [len(one.attachments) for one in bag.extras()] == [1]


def test_a_file_of_which_nothing_can_be_read_is_no_bag(tmp_path):
    for name in ("bag.db3", "bag.mcap", "bag.db3.zstd", "bag.mcap.zstd"):
        for content in (b"", b"no bag", bytes(10_000), random.Random(0).randbytes(10_000)):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(BrokenBagError, match=f"bag .*{name} cannot be read: "):
                read(tmp_path / name)


@pytest.mark.parametrize("suffix", [".mcap", ".db3", ".db3.zstd"])
def test_a_bag_that_git_lfs_has_not_fetched_is_called_that(tmp_path, suffix):
    path = tmp_path / f"bag{suffix}"
    path.write_bytes(LFS_POINTER)
    with Bag(path) as bag, pytest.raises(BrokenBagError, match="is a Git LFS pointer, which stands for"):
        print(bag.types)


def test_a_ros_1_bag_is_called_that_and_the_fix_converts_it(tmp_path):
    from rosbags.rosbag1 import Writer
    from rosbags.typesys import Stores, get_typestore

    types = get_typestore(Stores.ROS1_NOETIC)
    file = tmp_path / "talk.bag"
    with Writer(file) as writer:
        connection = writer.add_connection("/talk", TALK, typestore=types)
        writer.write(connection, 7, types.serialize_ros1(types.types[TALK]("hello"), TALK))
    with pytest.raises(ConfigError, match=r"talk\.bag is a ROS 1 bag") as caught:
        Bag(file)
    command = str(caught.value).rpartition("fix: ")[2].split()
    subprocess.run([Path(sys.executable).with_name(command[0]), *command[1:]], check=True)
    with Bag(tmp_path / "talk") as bag:
        assert [(one.time, one.data[8:13]) for one in bag.messages(["/talk"])] == [(7, b"hello")]


def test_few_files_of_a_split_bag_are_open_at_a_time(tmp_path):
    bag = tmp_path / "bag"
    bag.mkdir()
    for number in range(40):
        part = write_bag(tmp_path / "part", ("SQLITE3", "MCAP")[number % 2], messages([number]))
        file = storage_file(part)
        file.rename(bag / f"{number}{file.suffix}")
        shutil.rmtree(part)
    before = len(os.listdir("/proc/self/fd"))
    with Bag(bag) as opened:
        most = max(len(os.listdir("/proc/self/fd")) for _ in opened.messages(["/talk"]))
    assert most - before < 5
    assert read(bag) == (list(range(40)), [])
    assert len(os.listdir("/proc/self/fd")) == before


def small_files(folder):
    """A file of each kind, small enough that damage hits every part of it."""
    schema = (TALK, "ros2msg", b"string data")
    rows = [("/talk", schema, "cdr", 100 + n, b"\0\1\0\0\6\0\0\0hello\0") for n in range(40)]
    yield write_mcap(folder / "chunks.mcap", rows, chunk_size=200)
    yield write_mcap(folder / "plain.mcap", rows, use_chunking=False)
    yield write_mcap(folder / "open.mcap", rows, finish=False, chunk_size=200)
    yield storage_file(write_bag(folder / "bag", "SQLITE3", [(row[0], TALK, row[4], row[3]) for row in rows]))


def test_damage_anywhere_costs_messages_or_the_file_and_nothing_else(tmp_path):
    luck = random.Random(0)
    for file in small_files(tmp_path):
        whole, counts = file.read_bytes(), []
        for _ in range(100):
            size = luck.choice([1, 8, 100, 1000])
            begin = luck.randrange(len(whole))
            damaged = whole[:begin] + luck.randbytes(size) + whole[begin + size :]
            file.write_bytes(damaged[: len(whole)])
            try:
                with Bag(file) as bag:
                    counts.append(sum(1 for _ in bag.messages_of(lambda topic: True)))
                    assert all("/" in name for name in bag.types)
                    assert all(bag.problems())
                    list(bag.extras())
            except BrokenBagError:
                counts.append(0)
        # The last chunk of a file without an end was never written.
        assert max(counts) >= 38
        assert sum(counts) > 1000
