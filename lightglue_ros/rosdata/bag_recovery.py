"""Recovers the messages of a bag without an end: a killed recorder, a full disk, a copy that was cut.

A database is read in the order in which it was written, an MCAP file as a stream, without the index at its
end. Both readings end at the first thing that cannot be read. A long database that is cut before its first
few thousand messages is lost, because SQLite puts the root page of that table after them.
"""

from __future__ import annotations

import itertools
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from lightglue_ros.errors import ConfigError
from lightglue_ros.rosdata.bags import BagWriter, BrokenBagError, metadata_of, storage_files, storage_of

# What BagWriter.write takes: topic, time in nanoseconds, serialized message.
_Recovered = Iterator[tuple[Any, int, bytes]]


def require_closed(path: Path) -> None:
    """Check that the recorder closed a bag.

    Raises:
        BrokenBagError: the last messages are in SQLite's journal, which rosbags does not read.
        ConfigError: there is no bag.
    """
    if any(_has_journal(file) for file in storage_files(path)):
        raise BrokenBagError(f"bag {path} was not closed by its recorder", fix=f"ros2 bag reindex {path}")


def recover(path: Path, folder: Path) -> tuple[Path, int]:
    """Copy the readable messages of a broken bag to a new, whole bag of the same storage.

    Args:
        path: folder of a rosbag2, or its .db3 or .mcap file; it is not changed.
        folder: the folder to make a folder for the new bag in.

    Returns:
        The new bag, and the number of its messages.

    Raises:
        BrokenBagError: rosbag2 compressed the bag; only the lost index could tell its messages.
        ConfigError: there is no bag, or mcap is not installed.
    """
    files = storage_files(path)
    if metadata_of(path).get("compression_mode", "").lower() not in ("", "none"):
        raise BrokenBagError(f"bag {path} is broken and compressed", fix=f"ros2 bag reindex {path}")
    storage = storage_of(files)
    read = _read_mcap if storage == "mcap" else _read_sqlite3
    recovered, count = Path(tempfile.mkdtemp(dir=folder)) / "bag", 0
    with BagWriter(recovered, storage) as writer:
        for file in files:
            for topic, time, data in read(file, writer):
                writer.write(topic, time, data)
                count += 1
    return recovered, count


def _journal_of(database: Path) -> Path:
    return database.with_name(f"{database.name}-wal")


def _has_journal(file: Path) -> bool:
    journal = _journal_of(file)
    return journal.exists() and journal.stat().st_size > 0


def _read_sqlite3(file: Path, writer: BagWriter) -> _Recovered:
    if not _has_journal(file):
        yield from _read_database(file, "?immutable=1", writer)
        return
    # SQLite changes a database with a journal when it opens it, so it gets a copy.
    with tempfile.TemporaryDirectory(dir=writer.path) as folder:
        copy = Path(folder) / file.name
        shutil.copyfile(file, copy)
        shutil.copyfile(_journal_of(file), _journal_of(copy))
        yield from _read_database(copy, "", writer)


def _read_database(file: Path, options: str, writer: BagWriter) -> _Recovered:
    with closing(sqlite3.connect(file.absolute().as_uri() + options, uri=True)) as database:
        database.text_factory = lambda text: text.decode(errors="replace")
        with suppress(sqlite3.DatabaseError, KeyError):
            # Without this SQLite refuses a database that is shorter than its header says.
            database.execute("PRAGMA writable_schema = ON")
            definitions = _definitions(database)
            rows = database.execute("SELECT id, name, type, offered_qos_profiles FROM topics").fetchall()
            topics = {
                number: writer.add_topic(name, kind, definitions.get(kind, ""), qos=qos)
                for number, name, kind, qos in rows
            }
            (page_size,) = database.execute("PRAGMA page_size").fetchone()
            # By id, because the index of the times may be lost.
            messages = database.execute("SELECT topic_id, timestamp, data FROM messages ORDER BY id")
            if file.stat().st_size % page_size:
                # SQLite fills a page that is cut with zeros, and with it the last message.
                messages = (message for message, _ in itertools.pairwise(messages))
            for topic, time, data in messages:
                yield topics[topic], time, data


def _definitions(database: sqlite3.Connection) -> dict[str, str]:
    try:
        rows = database.execute("SELECT topic_type, encoded_message_definition FROM message_definitions")
        return dict(rows.fetchall())
    except sqlite3.OperationalError:  # this table came with Iron
        return {}


def _read_mcap(file: Path, writer: BagWriter) -> _Recovered:
    try:
        from mcap.reader import NonSeekingReader
    except ImportError as missing:
        raise ConfigError(
            f"reading a broken MCAP file needs the Python package mcap ({missing})", fix="pip install mcap"
        ) from missing
    topics: dict[int, Any] = {}
    with file.open("rb") as stream:
        records = NonSeekingReader(stream, validate_crcs=True).iter_messages(log_time_order=False)
        for schema, channel, message in _until_broken(records):
            if channel.id not in topics:
                kind, definition = (schema.name, schema.data.decode(errors="replace")) if schema else ("", "")
                qos = channel.metadata.get("offered_qos_profiles", "")
                topics[channel.id] = writer.add_topic(channel.topic, kind, definition, qos=qos)
            yield topics[channel.id], message.log_time, message.data


def _until_broken(records: Iterator[Any]) -> Iterator[Any]:
    # The exception depends on where the file is broken, and on its compression.
    with suppress(Exception):
        yield from records
