"""Reads and writes MCAP files by the library mcap, chunk by chunk.

A damaged chunk costs the messages in it. A file without an index, of a recorder that was killed or a copy
that was cut, is read from its beginning as far as it goes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from lightglue_ros.errors import ConfigError
from lightglue_ros.rosdata.recording import BrokenBagError, Extras, Message, Topic, Wanted, merge_by_time

try:
    from mcap import records
    from mcap.data_stream import ReadDataStream
    from mcap.opcode import Opcode
    from mcap.reader import make_reader
    from mcap.stream_reader import breakup_chunk
    from mcap.summary import Summary
    from mcap.writer import CompressionType, Writer
except ImportError as missing:
    raise ConfigError(
        f"MCAP files need the Python package mcap ({missing})", fix="pip install mcap"
    ) from missing

_MAGIC = b"\x89MCAP0\r\n"
# Opcode and length of each record.
_HEAD = struct.Struct("<BQ")
# Times of a chunk's first and last message; channel, sequence and time of recording of a message.
_CHUNK_TIMES, _MESSAGE_HEAD = struct.Struct("<QQ"), struct.Struct("<HIQ")
_QOS, _TYPE_HASH = "offered_qos_profiles", "topic_type_hash"
_AT_ONCE = 4  # chunks that are kept for `read`


class _Block(NamedTuple):
    """A chunk, or a message outside of chunks: time of its first message, and where its record begins."""

    start: int
    position: int
    is_chunk: bool


class McapFile:
    """An MCAP file, opened for reading; see `StorageFile`.

    Raises:
        BrokenBagError: the file is no MCAP file of ROS 2.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream = path.open("rb")
        self._size = path.stat().st_size
        self._schemas: dict[int, records.Schema] = {}
        self._channels: dict[int, records.Channel] = {}
        self._topics: dict[int, Topic] = {}
        self._broken_chunks: dict[int, str] = {}
        self._broken_parts: dict[int, int] = {}
        self._read_chunk = lru_cache(_AT_ONCE)(self._open_chunk)
        try:
            self._check_header()
        except BaseException:
            self.close()
            raise
        if self._summary is not None:
            self._schemas.update(self._summary.schemas)
            self._channels.update(self._summary.channels)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    @cached_property
    def topics(self) -> list[Topic]:
        """All topics; without a summary all chunks are read for them."""
        if self._summary is None or not self._summary.channels:
            for block in self._blocks:
                self._try_block(block)
        return [self._topic(channel) for channel in self._channels]

    @property
    def start(self) -> int | None:
        """Time of the first message."""
        return min((block.start for block in self._blocks), default=None)

    def messages(self, wanted: Wanted) -> Iterator[Message]:
        """Read messages in the order of their times."""
        return merge_by_time(
            (block.start, partial(self._messages_of, block, wanted)) for block in self._blocks
        )

    def read(self, place: tuple[_Block, int]) -> bytes:
        """Read the data of one message again."""
        block, number = place
        return self._messages_in(block)[number].data

    def extras(self) -> Extras:
        """Read attachments and metadata, except those of rosbag2 itself, which do not hold for a copy."""
        found = Extras()
        for opcode, position in self._records():
            if opcode in (Opcode.ATTACHMENT, Opcode.METADATA):
                self._stream.seek(position + _HEAD.size)
                stream = ReadDataStream(self._stream)
                if opcode == Opcode.ATTACHMENT:
                    found.attachments.append(records.Attachment.read(stream))
                elif (metadata := records.Metadata.read(stream)).name != "rosbag2":
                    found.metadata.append(metadata)
        return found

    def damage(self) -> list[str]:
        """Name what could not be read so far."""
        lines = []
        if self._broken_chunks:
            chunks = sum(block.is_chunk for block in self._blocks)
            first, why = min(self._broken_chunks.items())
            count = f"{len(self._broken_chunks)} of {f'{chunks} chunks' if chunks else 'its records'}"
            lines.append(f"{count} cannot be read, the first at byte {first} ({why})")
        for begin, end in sorted(self._broken_parts.items()):
            to = "on" if end == self._size else f"to {end}"
            lines.append(f"cannot be read from byte {begin} of {self._size} {to}")
        return lines

    def _check_header(self) -> None:
        if self._stream.read(len(_MAGIC)) != _MAGIC:
            raise BrokenBagError(f"{self._path} is no MCAP file: its first bytes are not those of MCAP")
        opcode, position = next(self._records(), (None, 0))
        self._stream.seek(position + _HEAD.size)
        if opcode != Opcode.HEADER:
            raise BrokenBagError(f"{self._path} has no header of MCAP")
        # Any other profile is read, because its name may be damaged.
        header = self._stream.read(8)
        if header[4:] == b"ros1":
            raise BrokenBagError(f"{self._path} is a ROS 1 bag", allowed="bags of ROS 2")

    @cached_property
    def _summary(self) -> Summary | None:
        self._stream.seek(0)
        try:
            return make_reader(self._stream).get_summary()
        # The exception depends on where the file is broken.
        except Exception:
            return None

    @cached_property
    def _index(self) -> dict[int, int]:
        """Where each chunk of the file's index and the records about it begin and end."""
        chunks = self._summary.chunk_indexes if self._summary is not None else []
        return {
            one.chunk_start_offset: one.chunk_start_offset + one.chunk_length + one.message_index_length
            for one in chunks
        }

    @cached_property
    def _blocks(self) -> list[_Block]:
        found = []
        if self._summary is not None:
            found += [
                _Block(one.message_start_time, one.chunk_start_offset, True)
                for one in self._summary.chunk_indexes
            ]
        for opcode, position in self._records():
            self._stream.seek(position + _HEAD.size)
            if opcode == Opcode.CHUNK and position not in self._index:
                start, _ = _CHUNK_TIMES.unpack(self._stream.read(_CHUNK_TIMES.size))
                found.append(_Block(start, position, True))
            elif opcode == Opcode.MESSAGE:
                _, _, time = _MESSAGE_HEAD.unpack(self._stream.read(_MESSAGE_HEAD.size))
                found.append(_Block(time, position, False))
            elif opcode in (Opcode.SCHEMA, Opcode.CHANNEL):
                kind = records.Schema if opcode == Opcode.SCHEMA else records.Channel
                try:
                    self._add(kind.read(ReadDataStream(self._stream)))
                # The exception depends on which bytes are broken.
                except Exception as error:
                    self._broken_chunks[position] = f"{type(error).__name__}: {error}"
        return found

    def _records(self) -> Iterator[tuple[int, int]]:
        """Find the records outside of chunks up to the end of the data: (opcode, where the record begins).

        Behind a broken one the index tells where the next chunk begins.
        """
        position = len(_MAGIC)
        while True:
            self._stream.seek(position)
            head = self._stream.read(_HEAD.size)
            opcode, length = _HEAD.unpack(head) if len(head) == _HEAD.size else (0, 0)
            if opcode in (Opcode.DATA_END, Opcode.FOOTER):
                return
            end = position + _HEAD.size + length
            if opcode == 0 or end > self._size:
                end = min((begin for begin in self._index if begin > position), default=self._size)
                # The index knows a broken chunk.
                if position < end and position not in self._index:
                    self._broken_parts[position] = end
                if end == self._size:
                    return
            else:
                yield opcode, position
                if opcode == Opcode.CHUNK:
                    end = max(end, self._index.get(position, 0))
            position = end

    def _add(self, record: Any) -> None:
        known = self._schemas if isinstance(record, records.Schema) else self._channels
        known.setdefault(record.id, record)

    def _topic(self, channel_id: int) -> Topic:
        if channel_id not in self._topics:
            channel = self._channels[channel_id]
            schema = self._schemas.get(channel.schema_id)
            metadata = dict(channel.metadata)
            self._topics[channel_id] = Topic(
                channel.topic,
                schema.name if schema else "",
                channel.message_encoding,
                schema.data if schema else b"",
                schema.encoding if schema else "",
                metadata.pop(_TYPE_HASH, ""),
                metadata.pop(_QOS, ""),
                tuple(metadata.items()),
            )
        return self._topics[channel_id]

    def _messages_of(self, block: _Block, wanted: Wanted) -> Iterator[Message]:
        found = []
        for number, record in enumerate(self._try_block(block)):
            if record.channel_id in self._channels:
                topic = self._topic(record.channel_id)
                if wanted(topic):
                    place = (block, number)
                    about = record.publish_time, record.sequence
                    found.append(Message(topic, record.log_time, record.data, place, *about))
        return iter(sorted(found, key=lambda message: message.time))

    def _try_block(self, block: _Block) -> list[records.Message]:
        try:
            return self._messages_in(block)
        # The exception depends on what is broken, and on the compression.
        except Exception as error:
            self._broken_chunks[block.position] = f"{type(error).__name__}: {error}"
            return []

    def _messages_in(self, block: _Block) -> list[records.Message]:
        if block.is_chunk:
            return self._read_chunk(block.position)
        self._stream.seek(block.position)
        _, length = _HEAD.unpack(self._stream.read(_HEAD.size))
        return [records.Message.read(ReadDataStream(self._stream), length)]

    def _open_chunk(self, position: int) -> list[records.Message]:
        self._stream.seek(position)
        opcode, length = _HEAD.unpack(self._stream.read(_HEAD.size))
        if opcode != Opcode.CHUNK or position + length > self._size:
            raise BrokenBagError("there is no chunk")
        chunk = records.Chunk.read(ReadDataStream(self._stream))
        found = breakup_chunk(chunk, validate_crc=True)
        for record in found:
            if not isinstance(record, records.Message):
                self._add(record)
        return [record for record in found if isinstance(record, records.Message)]


class McapWriter:
    """Writes an MCAP file."""

    suffix = ".mcap"

    def __init__(self, path: Path) -> None:
        self._stream = path.open("xb")
        self._writer = Writer(self._stream, compression=CompressionType.NONE)
        self._writer.start("ros2", "lightglue_ros")
        self._schemas: dict[tuple[str, str, bytes], int] = {}

    def add_topic(self, topic: Topic) -> int:
        """Add a topic; returns its number."""
        schema = (topic.kind, topic.definition_encoding, topic.definition)
        if topic.kind and schema not in self._schemas:
            self._schemas[schema] = self._writer.register_schema(*schema)
        metadata = {**dict(topic.metadata), _QOS: topic.qos}
        if topic.type_hash:
            metadata[_TYPE_HASH] = topic.type_hash
        return self._writer.register_channel(
            topic.recorded_name, topic.encoding, self._schemas.get(schema, 0), metadata
        )

    def write(self, topic: int, message: Message) -> None:
        """Write a message on a topic of this file."""
        self._writer.add_message(topic, message.time, message.data, message.published, message.sequence)

    def add_extras(self, extras: Extras) -> int:
        """Add attachments and metadata; returns how many are left out."""
        for one in extras.attachments:
            self._writer.add_attachment(one.create_time, one.log_time, one.name, one.media_type, one.data)
        for one in extras.metadata:
            self._writer.add_metadata(one.name, one.metadata)
        return 0

    def finish(self, metadata: str, version: int) -> None:
        """Write index and metadata, and close the file."""
        self._writer.add_metadata("rosbag2", {"serialized_metadata": metadata})
        self._writer.finish()
        self._stream.close()

    def close(self) -> None:
        """Close the file as it is; twice does no harm."""
        self._stream.close()
