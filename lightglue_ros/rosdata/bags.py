"""Reads rosbag2 of sqlite3 or MCAP, also compressed and split ones, as far as they can be read.

Several bags can be read as if they were one, for example a bag for each camera.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, closing, suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lightglue_ros.core.files import mistaken_file, natural_order
from lightglue_ros.errors import ConfigError
from lightglue_ros.rosdata.recording import (
    BrokenBagError,
    Extras,
    Message,
    StorageFile,
    Topic,
    Wanted,
    merge_by_time,
)
from lightglue_ros.rosdata.sqlite_storage import SqliteFile, journal_of, take_over_journal

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
STORAGES = ("sqlite3", "mcap")
_SUFFIXES = {".db3": "sqlite3", ".mcap": "mcap"}
_COMPRESSED = ".zstd"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
# Files that are open at a time for `Bag.read`: of each camera the present and the next one.
_AT_ONCE = 16


class Place(NamedTuple):
    """The place of a message in a bag: number of the file, and place in that file."""

    file: int
    place: Any


class Bag(AbstractContextManager):
    """A recorded bag, or several that belong together; a context manager that closes them.

    Args:
        paths: folders of rosbag2, or .db3 or .mcap files, also compressed ones (.zstd).
        unpacked: folder for copies of files that cannot be read as they are, shared with other readers of
            the bag; None is a temporary folder.

    Attributes:
        storage: ``sqlite3`` or ``mcap``, that of the first file.
        notes: lines for the user: what is unusual about the files.

    Raises:
        ConfigError: there is no bag.
    """

    def __init__(self, *paths: str | Path, unpacked: Path | None = None) -> None:
        self.paths = [Path(path).expanduser() for path in paths]
        self.notes: list[str] = []
        self._problems: list[str] = []
        self._damage: dict[int, list[str]] = {}
        self._temporary = None if unpacked else tempfile.TemporaryDirectory()
        self._unpacked = unpacked or Path(self._temporary.name)
        self._open_files: OrderedDict[int, StorageFile] = OrderedDict()
        self._files = [file for path in self.paths for file in self._find_files(path)]
        self.storage = _storage_of(self._files[0])

    def __exit__(self, *error: object) -> None:
        self.close()

    def __str__(self) -> str:
        return " + ".join(map(str, self.paths))

    def close(self) -> None:
        """Close the files."""
        while self._open_files:
            self._open_files.popitem()[1].close()
        if self._temporary is not None:
            self._temporary.cleanup()

    @property
    def topics(self) -> list[Topic]:
        """All topics of the bag.

        Raises:
            BrokenBagError: none of the files can be read.
        """
        return self._contents[0]

    @property
    def types(self) -> dict[str, str]:
        """Type of each topic, such as sensor_msgs/msg/Image, by the topic's absolute name."""
        return {topic.name: topic.message_type for topic in self.topics}

    def image_types(self, topics: Sequence[str] = ()) -> dict[str, str]:
        """Return the types of image topics.

        Args:
            topics: the wanted topics; all image topics if empty.

        Raises:
            ConfigError: one of the topics has no images, or the bag has none at all.
        """
        images = {topic: kind for topic, kind in self.types.items() if kind in IMAGE_TYPES}
        lacking = [topic for topic in topics if topic not in images]
        if lacking or not images:
            raise ConfigError(
                f"bag {self} has no images{' on ' + ', '.join(lacking) if lacking else ''}",
                allowed=f"topics of {' or '.join(IMAGE_TYPES)}; it has: {self.describe_topics()}",
            )
        return {topic: images[topic] for topic in topics or sorted(images)}

    def describe_topics(self) -> str:
        """Return the topics and their types in words."""
        topics = sorted(self.types.items())
        return ", ".join(f"{name} ({kind or 'of no type'})" for name, kind in topics) or "no topics"

    def messages(self, topics: Collection[str]) -> Iterator[Message]:
        """Read the messages of topics in the order in which they were recorded; see `messages_of`."""
        return self.messages_of(lambda topic: topic.name in topics)

    def messages_of(self, wanted: Wanted) -> Iterator[Message]:
        """Read messages in the order in which they were recorded. The place of each is for `read`.

        What cannot be read is left out; see `problems`.
        """
        starts = self._contents[1]
        return merge_by_time(
            (start, partial(self._messages_in, number, wanted)) for number, start in starts.items()
        )

    def read(self, place: Place) -> bytes:
        """Read the data of one message again."""
        if place.file not in self._open_files:
            if len(self._open_files) == _AT_ONCE:
                self._open_files.popitem(last=False)[1].close()
            self._open_files[place.file] = self._open(place.file)
        self._open_files.move_to_end(place.file)
        return _unpacked_message(self._open_files[place.file].read(place.place))

    def extras(self) -> Iterator[Extras]:
        """Read what the files hold apart from messages."""
        for number in self._contents[1]:
            with closing(self._open(number)) as file:
                try:
                    yield file.extras()
                # The exception depends on which bytes are broken.
                except Exception as error:
                    name = self._files[number].name
                    self._problems.append(f"attachments of {name} cannot be read: {error}")

    def problems(self) -> list[str]:
        """Name what is missing or could not be read so far, a line each."""
        of_files = (
            f"{self._files[number].name}: {line}" for number, lines in self._damage.items() for line in lines
        )
        return [*self._problems, *of_files]

    @cached_property
    def _contents(self) -> tuple[list[Topic], dict[int, int]]:
        """All topics, and the time of the first message of each file that has any."""
        topics: dict[Topic, None] = {}
        starts = {}
        errors = []
        for number, path in enumerate(self._files):
            try:
                with closing(self._open(number)) as file:
                    topics.update(dict.fromkeys(file.topics))
                    if file.start is not None:
                        starts[number] = file.start
                    self._damage[number] = file.damage()
            except (BrokenBagError, OSError) as error:
                errors.append(error)
                self._problems.append(f"{path.name} cannot be read: {error}")
        if len(errors) == len(self._files):
            raise BrokenBagError(f"bag {self} cannot be read: {errors[0]}")
        return list(topics), starts

    def _messages_in(self, number: int, wanted: Wanted) -> Iterator[Message]:
        broken = 0
        with closing(self._open(number)) as file:
            for message in file.messages(wanted):
                try:
                    data = message.data
                    if message.topic.encoding == "cdr":
                        data = _unpacked_message(data)
                except ValueError:
                    broken += 1
                    continue
                yield message._replace(data=data, place=Place(number, message.place))
            self._damage[number] = file.damage()
        if broken:
            self._damage[number].append(f"{broken} compressed messages are broken")

    def _open(self, number: int) -> StorageFile:
        path = self._files[number]
        with path.open("rb") as file:
            mistaken = mistaken_file(file.read(64))
        if mistaken is not None:
            raise BrokenBagError(f"{path} is {mistaken[0]}", fix=mistaken[1])
        path = self._unpack(number, path)
        if _storage_of(path) == "sqlite3":
            return SqliteFile(path)
        # Only MCAP files need the package mcap.
        from lightglue_ros.rosdata.mcap_storage import McapFile

        return McapFile(path)

    def _unpack(self, number: int, file: Path) -> Path:
        """Return the file, or a copy of it that can be read if it is compressed or was not closed."""
        has_journal = journal_of(file).is_file() and journal_of(file).stat().st_size > 0
        if file.suffix != _COMPRESSED and not has_journal:
            return file
        unpacked = self._unpacked / f"{number}-{file.name.removesuffix(_COMPRESSED)}"
        if not unpacked.exists():
            self._unpacked.mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._unpacked) as folder:
                copy = Path(folder) / unpacked.name
                if has_journal:
                    # SQLite changes a database with a journal when it opens it.
                    shutil.copyfile(file, copy)
                    shutil.copyfile(journal_of(file), journal_of(copy))
                    take_over_journal(copy)
                else:
                    _unpack_file(file, copy)
                copy.replace(unpacked)
        return unpacked

    def _find_files(self, path: Path) -> list[Path]:
        """Return the files of a bag, and name those that are missing."""
        found = storage_files(path)
        if not path.is_dir():
            return found
        listed = _listed_files(metadata_of(path))
        missing = [name for name in listed if not (path / name).exists()]
        others = [file.name for file in found if file.name not in listed]
        if missing and len(others) >= len(missing):
            was = f"{', '.join(missing)}, which metadata.yaml names, is missing"
            self.notes.append(f"{was}; read instead: {', '.join(others)}")
            return found
        self._problems += [
            f"{name} is missing, which metadata.yaml names ({count} messages)"
            for name, count in listed.items()
            if name in missing
        ]
        if not listed or missing:
            return found
        # It may belong to another bag, and a message must not be there twice.
        self._problems += [
            f"{name} is not read, because metadata.yaml does not name it; fix: remove it, or metadata.yaml"
            for name in others
            if name + _COMPRESSED not in listed
        ]
        return [path / name for name in listed]


def storage_files(path: Path) -> list[Path]:
    """Return the .db3 or .mcap files of a bag, sorted by name with numbers by value.

    Raises:
        ConfigError: there is no bag.
    """
    # Other systems leave hidden files next to those that they copy.
    files = (
        [file for file in path.iterdir() if not file.name.startswith(".") and not file.is_dir()]
        if path.is_dir()
        else [path] * path.exists()
    )
    found = {file.name: file for file in files if _storage_of(file)}
    # A recorder that was killed while it compressed a file leaves both.
    whole = [
        file for name, file in found.items() if name.removesuffix(_COMPRESSED) not in found.keys() - {name}
    ]
    if not whole:
        ros1 = next((file for file in files if file.suffix == ".bag"), None)
        raise ConfigError(
            f"{ros1} is a ROS 1 bag" if ros1 else f"there is no bag {path}",
            allowed="folder of a rosbag2, or its .db3 or .mcap file",
            fix=f"rosbags-convert --src {ros1} --dst {ros1.with_suffix('')}" if ros1 else "check the path",
        )
    return sorted(whole, key=natural_order)


def _storage_of(file: Path) -> str:
    """Return the storage of a file: ``sqlite3`` or ``mcap``; empty if it is none."""
    return _SUFFIXES.get(Path(file.name.removesuffix(_COMPRESSED)).suffix, "")


def metadata_of(path: Path) -> dict[str, Any]:
    """Read a bag's metadata.yaml; returns an empty dictionary if it is missing or broken."""
    try:
        return dict(yaml.safe_load((path / "metadata.yaml").read_text())["rosbag2_bagfile_information"])
    except (OSError, TypeError, ValueError, KeyError, yaml.YAMLError):
        return {}


def _listed_files(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the names of the files that a bag's metadata lists, each with its number of messages."""
    paths, files = metadata.get("relative_file_paths"), metadata.get("files")
    about = [one for one in files if isinstance(one, dict)] if isinstance(files, list) else []
    counts = {Path(str(one.get("path"))).name: one.get("message_count") for one in about}
    names = [Path(str(path)).name for path in paths] if isinstance(paths, list) else []
    return {name: counts.get(name, "unknown") for name in names}


def _unpack_file(file: Path, unpacked: Path) -> None:
    import zstandard

    with file.open("rb") as packed, unpacked.open("wb") as output, suppress(zstandard.ZstdError):
        shutil.copyfileobj(
            zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True), output
        )


def _unpacked_message(data: bytes) -> bytes:
    """Decompress a message that rosbag2 compressed; its first four bytes are not those of CDR.

    Raises:
        ValueError: the message is broken.
    """
    if data[:4] != _ZSTD_MAGIC:
        return data
    import zstandard

    try:
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error
