"""Reads and writes the SQLite databases of rosbag2, message by message.

A damaged page costs the messages in it: a message is read by its number, so that those before and after it
are found without it. Where SQLite's tree is broken, its leaves are looked for page by page.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import numpy as np

from lightglue_ros.rosdata.recording import BrokenBagError, Extras, Message, Topic, Wanted
from lightglue_ros.rosdata.sqlite_pages import MessageCell, find_cells, read_cell
from lightglue_ros.rosdata.typestore import known_definition

# A lost page of SQLite's tree may hide this many messages. A missing message costs 20 us to pass.
_MOST_HIDDEN = 100_000
_SCHEMA = """
CREATE TABLE schema(schema_version INTEGER PRIMARY KEY, ros_distro TEXT NOT NULL);
CREATE TABLE metadata(id INTEGER PRIMARY KEY, metadata_version INTEGER NOT NULL, metadata TEXT NOT NULL);
CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL,
    serialization_format TEXT NOT NULL, offered_qos_profiles TEXT NOT NULL,
    type_description_hash TEXT NOT NULL);
CREATE TABLE message_definitions(id INTEGER PRIMARY KEY, topic_type TEXT NOT NULL, encoding TEXT NOT NULL,
    encoded_message_definition TEXT NOT NULL, type_description_hash TEXT NOT NULL);
CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, timestamp INTEGER NOT NULL,
    data BLOB NOT NULL);
CREATE INDEX timestamp_idx ON messages (timestamp ASC);
INSERT INTO schema(schema_version, ros_distro) VALUES (4, 'lightglue_ros');
"""


def journal_of(database: Path) -> Path:
    """Return SQLite's journal of a database, which holds the last messages if the recorder was killed."""
    return database.with_name(f"{database.name}-wal")


def take_over_journal(database: Path) -> None:
    """Move the messages of a database's journal into the database."""
    connection = sqlite3.connect(database)
    with suppress(sqlite3.DatabaseError):
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


class SqliteFile:
    """A database of rosbag2, opened for reading; see `StorageFile`.

    Raises:
        BrokenBagError: the file is no such database.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        uri = f"{path.absolute().as_uri()}?immutable=1"
        self._database = sqlite3.connect(uri, uri=True, check_same_thread=False)
        self._database.row_factory = sqlite3.Row
        self._database.text_factory = lambda text: text.decode(errors="replace")
        self._broken = self._hidden = 0
        self._loose: dict[int, MessageCell] = {}
        self._is_end_hidden = False
        try:
            # Without this SQLite refuses a database that is shorter than its header says.
            self._database.execute("PRAGMA writable_schema = ON")
            definitions = self._definitions()
            rows = self._database.execute("SELECT * FROM topics ORDER BY id").fetchall()
        except sqlite3.DatabaseError as error:
            self.close()
            raise BrokenBagError(
                f"{path} is no database of rosbag2, or its beginning is broken: {error}"
            ) from error
        named = (dict(row) for row in rows if isinstance(row["name"], str) and isinstance(row["type"], str))
        self._topics = {row["id"]: _topic(row, definitions) for row in named}

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @property
    def topics(self) -> list[Topic]:
        """All topics."""
        return list(self._topics.values())

    @property
    def start(self) -> int | None:
        """Time of the first message."""
        return int(self._listed["time"][0]) if len(self._listed) else None

    def messages(self, wanted: Wanted) -> Iterator[Message]:
        """Read messages in the order of their times."""
        chosen = {number for number, topic in self._topics.items() if wanted(topic)}
        for number, topic, time in self._listed[np.isin(self._listed["topic"], list(chosen))].tolist():
            place = self._loose.get(number, number)
            try:
                data = self.read(place)
            except (sqlite3.DatabaseError, BrokenBagError):
                self._broken += 1
            else:
                yield Message(self._topics[topic], time, data, place, time)

    def read(self, place: int | MessageCell) -> bytes:
        """Read the data of one message again."""
        if isinstance(place, MessageCell):
            data = read_cell(self._path, self._page_size, place)
        else:
            row = self._database.execute("SELECT data FROM messages WHERE id = ?", (place,)).fetchone()
            data = row and row["data"]
        if not isinstance(data, bytes):
            raise BrokenBagError(f"{self._path} has no message {place}")
        return data

    def extras(self) -> Extras:
        """Return nothing: a database has no other contents."""
        return Extras()

    def damage(self) -> list[str]:
        """Name what could not be read so far."""
        lines = []
        if self._broken:
            count = f"{self._broken} of {len(self._listed)} messages"
            lines.append(f"{count} cannot be read (database disk image is malformed)")
        if self._hidden:
            lines.append(f"about {self._hidden} messages cannot be found (database disk image is malformed)")
        if self._size() < self._whole_size():
            lines.append(f"its end is missing: it has {self._size()} of {self._whole_size()} bytes")
        elif self._is_end_hidden:
            lines.append(f"its index is damaged: after {len(self._listed)} messages some may be missing")
        return lines

    def _definitions(self) -> dict[str, dict[str, str]]:
        try:
            rows = self._database.execute("SELECT * FROM message_definitions")
            return {row["topic_type"]: dict(row) for row in rows}
        except sqlite3.DatabaseError:  # damaged, or from before Iron
            return {}

    @cached_property
    def _listed(self) -> np.ndarray:
        """(number, topic, time) of all messages that can be found, in the order of their times."""
        fields = [("number", "i8"), ("topic", "i8"), ("time", "i8")]
        rows = np.fromiter(self._find(), fields)
        if self._hidden or self._is_end_hidden:
            known = set(rows["number"].tolist())
            cells = (cell for cell in find_cells(self._path, self._page_size) if cell.number not in known)
            self._loose = {cell.number: cell for cell in cells if cell.topic in self._topics}
            self._hidden = max(0, self._hidden - len(self._loose))
            rows = np.append(rows, np.array([cell[:3] for cell in self._loose.values()], fields))
            rows.sort(order="number")
        if len(rows) and self._size() % self._page_size:
            rows = self._without_last(rows)
        return rows[np.argsort(rows["time"], kind="stable")]

    def _find(self) -> Iterator[tuple[int, int, int]]:
        query = "SELECT id, topic_id, timestamp FROM messages WHERE id > ? ORDER BY id"
        last, passed, end = 0, 0, self._last_number()
        while last < end and passed < _MOST_HIDDEN:
            try:
                for number, topic, time in self._database.execute(query, (last,)):
                    self._hidden += passed
                    passed, last = 0, number
                    if isinstance(time, int) and isinstance(topic, int):
                        yield number, topic, time
                return
            except sqlite3.DatabaseError:
                last, passed = last + 1, passed + 1
        self._is_end_hidden = end == float("inf")
        self._hidden += 0 if self._is_end_hidden else passed

    def _last_number(self) -> float:
        """Return the number of the last message; infinity if the end of the table is missing or damaged."""
        try:
            return self._database.execute("SELECT max(id) FROM messages").fetchone()[0] or 0
        except sqlite3.DatabaseError:
            return float("inf")

    def _size(self) -> int:
        return self._path.stat().st_size

    @cached_property
    def _page_size(self) -> int:
        return self._database.execute("PRAGMA page_size").fetchone()[0]

    def _whole_size(self) -> int:
        """Return the size of the file as its header says."""
        with self._path.open("rb") as file:
            return self._page_size * int.from_bytes(file.read(32)[28:], "big")

    def _without_last(self, rows: np.ndarray) -> np.ndarray:
        """Leave out the last message that can be read: SQLite fills the page that was cut with zeros."""
        for count in range(len(rows), 0, -1):
            with suppress(sqlite3.DatabaseError, BrokenBagError):
                number = int(rows[count - 1]["number"])
                self.read(self._loose.get(number, number))
                self._broken += 1
                return np.delete(rows, count - 1)
        return rows


def _topic(row: dict[str, str], definitions: dict[str, dict[str, str]]) -> Topic:
    kind = row["type"]
    definition = definitions.get(kind, {})
    text = definition.get("encoded_message_definition") or known_definition(kind)
    return Topic(
        row["name"],
        kind,
        row["serialization_format"] or "",
        text if isinstance(text, bytes) else text.encode(),
        definition.get("encoding") or ("ros2msg" if text else ""),
        row.get("type_description_hash") or "",
        row.get("offered_qos_profiles") or "",
    )


class SqliteWriter:
    """Writes a database of rosbag2."""

    suffix = ".db3"

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path)
        self._database.executescript(_SCHEMA)
        self._kinds: set[str] = set()
        self._topics = 0

    def add_topic(self, topic: Topic) -> int:
        """Add a topic; returns its number."""
        # Other readers refuse a bag that has a definition without an encoding.
        if topic.definition_encoding and topic.kind not in self._kinds:
            self._kinds.add(topic.kind)
            try:
                text: str | bytes = topic.definition.decode()
            except UnicodeDecodeError:
                text = topic.definition
            self._database.execute(
                "INSERT INTO message_definitions(topic_type, encoding, encoded_message_definition, "
                "type_description_hash) VALUES (?, ?, ?, ?)",
                (topic.kind, topic.definition_encoding, text, topic.type_hash),
            )
        self._topics += 1
        values = topic.recorded_name, topic.kind, topic.encoding, topic.qos, topic.type_hash
        self._database.execute("INSERT INTO topics VALUES (?, ?, ?, ?, ?, ?)", (self._topics, *values))
        return self._topics

    def write(self, topic: int, message: Message) -> None:
        """Write a message on a topic of this file."""
        self._database.execute(
            "INSERT INTO messages(topic_id, timestamp, data) VALUES (?, ?, ?)",
            (topic, message.time, message.data),
        )

    def add_extras(self, extras: Extras) -> int:
        """Return the number of attachments and metadata, which have no place in a database."""
        return len(extras.attachments) + len(extras.metadata)

    def finish(self, metadata: str, version: int) -> None:
        """Write metadata and close the file."""
        self._database.execute(
            "INSERT INTO metadata(metadata_version, metadata) VALUES (?, ?)", (version, metadata)
        )
        self._database.commit()
        self._database.close()

    def close(self) -> None:
        """Close the file as it is; twice does no harm."""
        self._database.close()
