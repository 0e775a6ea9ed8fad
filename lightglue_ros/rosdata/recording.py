"""Topics and messages of a bag, whatever its storage."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from lightglue_ros.errors import ConfigError

# Returns True for a topic whose messages are wanted.
Wanted = Callable[["Topic"], bool]


class BrokenBagError(ConfigError):
    """A bag, or a file of it, of which nothing can be read."""


@dataclass(frozen=True)
class Topic:
    """A recorded topic, with all that a copy must keep.

    Attributes:
        recorded_name: as the bag has it; some writers leave out the leading slash.
        kind: message type, such as sensor_msgs/msg/Image; empty if the bag does not tell.
        encoding: of the messages: cdr in ROS 2, or another one that MCAP knows, such as json.
        definition: of the type and of those in it; not always text.
        definition_encoding: ros2msg, ros2idl, or another one that MCAP knows, such as protobuf.
        type_hash: of the type, as REP 2016 defines it; empty if it is not known.
        qos: QoS profiles that its publishers offered, in a bag's YAML.
        metadata: what else an MCAP file says about the topic.
    """

    recorded_name: str
    kind: str
    encoding: str = "cdr"
    definition: bytes = b""
    definition_encoding: str = ""
    type_hash: str = ""
    qos: str = ""
    metadata: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """Absolute name."""
        return f"/{self.recorded_name.lstrip('/')}"

    @property
    def message_type(self) -> str:
        """Type in the form of ROS 2; some writers leave out the `msg` in the middle."""
        package, slash, name = self.kind.partition("/")
        return f"{package}/msg/{name}" if slash and "/" not in name else self.kind


class Message(NamedTuple):
    """A recorded message.

    Attributes:
        topic: its topic.
        time: of recording, in nanoseconds.
        data: serialized message.
        place: where `read` of the same storage file finds its data again.
        published: time of publishing in nanoseconds, if the storage keeps it.
        sequence: number that its publisher gave it, if the storage keeps it.
    """

    topic: Topic
    time: int
    data: bytes
    place: Any
    published: int
    sequence: int = 0


@dataclass
class Extras:
    """Contents of an MCAP file other than messages, as records of the library mcap."""

    attachments: list[Any] = field(default_factory=list)
    metadata: list[Any] = field(default_factory=list)


class StorageFile(Protocol):
    """A file of a bag, opened for reading. Whatever cannot be read is left out and named.

    Attributes:
        topics: all topics in the file.
        start: time of the first message in nanoseconds; None if there is none.
    """

    topics: list[Topic]
    start: int | None

    def messages(self, wanted: Wanted) -> Iterator[Message]:
        """Read the messages of the wanted topics in the order of their times."""

    def read(self, place: Any) -> bytes:
        """Read the data of one message again."""

    def extras(self) -> Extras:
        """Read what else is in the file."""

    def damage(self) -> list[str]:
        """Name what could not be read so far, each in a few words."""

    def close(self) -> None:
        """Close the file."""


def merge_by_time(sources: Iterable[tuple[int, Callable[[], Iterator[Message]]]]) -> Iterator[Message]:
    """Merge messages in the order of their times; of the same time, those of an earlier source come first.

    A source is opened when its first message is due, so that few of many files are open at a time.

    Args:
        sources: (time of the first message, function that reads the messages in their order).
    """
    heap: list[tuple[int, int, Message, Iterator[Message]]] = []

    def advance(number: int, messages: Iterator[Message]) -> None:
        message = next(messages, None)
        if message is not None:
            heapq.heappush(heap, (message.time, number, message, messages))

    def until(end: float) -> Iterator[Message]:
        while heap and heap[0][0] <= end:
            _, number, message, messages = heapq.heappop(heap)
            yield message
            advance(number, messages)

    # Python's sort keeps the order of sources that begin at the same time.
    for number, (start, read) in enumerate(sorted(sources, key=lambda source: source[0])):
        yield from until(start)
        advance(number, read())
    yield from until(float("inf"))
