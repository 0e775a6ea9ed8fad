"""Saves what can be read of a bag that has no end: a recorder that was killed, a full disk, a cut copy.

A database is read in the order in which it was written, and an MCAP file as a stream, without its index at
the end. Either ends at the first thing that cannot be read. Of a long database that is cut before its first
few thousand messages nothing can be read, because the root of that table lies behind them.
"""

from __future__ import annotations

import itertools
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from lightglue_ros.errors import ConfigError
from lightglue_ros.rosdata.bags import BagWriter, BrokenBagError, metadata_of, storage_files, storage_of

# What to write to, the time in nanoseconds and the message.
_Recovered = Iterator[tuple[Any, int, bytes]]


def need_closed(path: Path) -> None:
    """Do nothing if the recorder has closed a bag.

    Raises:
        BrokenBagError: the last messages are in a journal beside the database, which rosbags does not read.
        ConfigError: there is no bag.
    """
    for file in storage_files(path):
        if journal_of(file).exists() and journal_of(file).stat().st_size:
            raise BrokenBagError(f"bag {path} was not closed by its recorder", fix=f"ros2 bag reindex {path}")


def journal_of(database: Path) -> Path:
    """Where SQLite keeps what is not in a database yet."""
    return database.with_name(f"{database.name}-wal")


def recover(path: Path, folder: Path) -> int:
    """Copy the messages of a broken bag that can be read to a whole one.

    Args:
        path: folder of a rosbag2, or its .db3 or .mcap file.
        folder: of the new bag, of the same storage; it is made.

    Returns:
        How many messages there are.

    Raises:
        BrokenBagError: its messages are compressed by rosbag2, which only its index tells.
        ConfigError: there is no bag, or mcap is not installed.
    """
    files = storage_files(path)
    if metadata_of(path).get("compression_mode", "").lower() not in ("", "none"):
        raise BrokenBagError(f"bag {path} is broken and compressed", fix=f"ros2 bag reindex {path}")
    read: Callable[[Path, BagWriter], _Recovered]
    storage = storage_of(files)
    read = _messages_of_sqlite3 if storage == "sqlite3" else _messages_of_mcap
    count = 0
    with BagWriter(folder, storage) as writer:
        for file in files:
            for topic, time, data in read(file, writer):
                writer.write(topic, time, data)
                count += 1
    return count


def _messages_of_sqlite3(file: Path, writer: BagWriter) -> _Recovered:
    # A copy, because to open a database with a journal is to change it.
    with tempfile.TemporaryDirectory(dir=writer.folder) as folder:
        copy = Path(folder) / file.name
        shutil.copyfile(file, copy)
        is_cut = _pad_sqlite3(copy)
        if journal_of(file).exists():
            shutil.copyfile(journal_of(file), journal_of(copy))
        messages = _messages_of_copy(copy, writer)
        # The message at a cut may end with zeros.
        yield from (first for first, _ in itertools.pairwise(messages)) if is_cut else messages


def _pad_sqlite3(file: Path) -> bool:
    """Fill a database up with zeros to the size that its header says: SQLite opens no shorter one.

    The header: https://www.sqlite.org/fileformat.html, section 1.3. Returns whether anything was lacking.
    """
    with file.open("r+b") as stream:
        header = stream.read(100)
        page_size = int.from_bytes(header[16:18], "big")
        size = int.from_bytes(header[28:32], "big") * (65536 if page_size == 1 else page_size)
        is_cut = header.startswith(b"SQLite format 3\0") and size > file.stat().st_size
        if is_cut:
            stream.truncate(size)
    return is_cut


def _messages_of_copy(file: Path, writer: BagWriter) -> _Recovered:
    with closing(sqlite3.connect(file)) as database:
        database.text_factory = lambda text: text.decode(errors="replace")
        try:
            definitions = _definitions_of_sqlite3(database)
            rows = database.execute("SELECT id, name, type, offered_qos_profiles FROM topics").fetchall()
            topics = {
                number: writer.add_topic(name, kind, definitions.get(kind, ""), qos)
                for number, name, kind, qos in rows
            }
            # By id, because the index of times may be lost.
            messages = database.execute("SELECT topic_id, timestamp, data FROM messages ORDER BY id")
            for number, time, data in messages:
                yield topics[number], time, data
        except (sqlite3.DatabaseError, KeyError):
            return


def _definitions_of_sqlite3(database: sqlite3.Connection) -> dict[str, str]:
    try:
        rows = database.execute("SELECT topic_type, encoded_message_definition FROM message_definitions")
        return dict(rows.fetchall())
    except sqlite3.OperationalError:  # there is no such table before Iron
        return {}


def _messages_of_mcap(file: Path, writer: BagWriter) -> _Recovered:
    try:
        from mcap.records import Channel, Message, Schema
        from mcap.stream_reader import StreamReader
    except ImportError as missing:
        raise ConfigError(
            f"reading a broken MCAP file needs the Python package mcap ({missing})", fix="pip install mcap"
        ) from missing
    schemas: dict[int, Schema] = {}
    topics: dict[int, Any] = {}
    with file.open("rb") as stream:
        records = StreamReader(stream, validate_crcs=True).records
        while (record := _next_of_mcap(records)) is not None:
            if isinstance(record, Schema):
                schemas[record.id] = record
            elif isinstance(record, Channel):
                topics[record.id] = _add_channel(writer, record, schemas.get(record.schema_id))
            elif isinstance(record, Message) and record.channel_id in topics:
                yield topics[record.channel_id], record.log_time, record.data


def _next_of_mcap(records: Iterator[Any]) -> Any:
    try:
        return next(records, None)
    # What a broken file raises depends on where it is broken, and on its compression.
    except Exception:
        return None


def _add_channel(writer: BagWriter, channel: Any, schema: Any) -> Any:
    definition = "" if schema is None else schema.data.decode(errors="replace")
    kind = "" if schema is None else schema.name
    return writer.add_topic(channel.topic, kind, definition, channel.metadata.get("offered_qos_profiles", ""))
