"""Finds messages of a damaged database in its pages, where SQLite's tree no longer leads to them.

Names and layout are those of https://www.sqlite.org/fileformat2.html: a leaf of a table holds cells with a
row each, and a long cell goes on in a chain of overflow pages.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

_LEAF = 0x0D
# Bytes of an integer by its serial type; those of types 8 and 9 are 0 and 1, without bytes.
_INTEGERS = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 8: 0, 9: 0}


class MessageCell(NamedTuple):
    """A message in a leaf.

    Attributes:
        number: of the message.
        topic: number of its topic.
        time: of recording, in nanoseconds.
        position: where its row begins in the file.
        size: bytes of its row.
        data_size: bytes of its data, which are the last ones of the row.
    """

    number: int
    topic: int
    time: int
    position: int
    size: int
    data_size: int


def find_cells(file: Path, page_size: int) -> Iterator[MessageCell]:
    """Find the cells of all leaves of the table `messages`."""
    with file.open("rb") as stream:
        for begin in range(0, file.stat().st_size, page_size):
            stream.seek(begin)
            if stream.read(1)[0] == _LEAF:
                page = bytes([_LEAF]) + stream.read(page_size - 1)
                yield from _cells_of(page, begin)


def read_cell(file: Path, page_size: int, cell: MessageCell) -> bytes | None:
    """Read the data of a message; None if one of its pages is lost."""
    with file.open("rb") as stream:
        stream.seek(cell.position)
        row = stream.read(_local_size(cell.size, page_size))
        following = _next_page(stream) if len(row) < cell.size else 0
        while following and len(row) < cell.size:
            stream.seek(page_size * (following - 1))
            following = _next_page(stream)
            row += stream.read(min(page_size - 4, cell.size - len(row)))
        return row[cell.size - cell.data_size :] if len(row) == cell.size else None


def _next_page(stream: BinaryIO) -> int:
    return int.from_bytes(stream.read(4), "big")


def _cells_of(page: bytes, begin: int) -> Iterator[MessageCell]:
    for cell in range(int.from_bytes(page[3:5], "big")):
        pointer = 8 + 2 * cell
        try:
            found = _parse(page, int.from_bytes(page[pointer : pointer + 2], "big"), begin)
        except IndexError:  # no leaf, although it begins like one
            return
        if found is not None:
            yield found


def _parse(page: bytes, position: int, begin: int) -> MessageCell | None:
    """Parse the cell at a position; None if its row is not (NULL, topic, time, data)."""
    size, position = _varint(page, position)
    number, row = _varint(page, position)
    header_size, position = _varint(page, row)
    types = []
    while position < row + header_size:
        one, position = _varint(page, position)
        types.append(one)
    if len(types) != 4 or not all(one in _INTEGERS for one in types[:3]) or types[3] < 12:
        return None
    values = []
    for one in types[:3]:
        integer = page[position : position + _INTEGERS[one]]
        values.append(one - 8 if one in (8, 9) else int.from_bytes(integer, "big", signed=True))
        position += len(integer)
    data_size = (types[3] - 12) // 2
    is_whole = position - row + data_size == size
    return MessageCell(number, values[1], values[2], begin + row, size, data_size) if is_whole else None


def _varint(page: bytes, position: int) -> tuple[int, int]:
    """Read an integer of 1 to 9 bytes; returns it and the position after it."""
    value = 0
    for last in range(position, position + 8):
        value = value << 7 | page[last] & 0x7F
        if page[last] < 0x80:
            return value, last + 1
    return value << 8 | page[position + 8], position + 9


def _local_size(size: int, page_size: int) -> int:
    """Return how many bytes of a row are in its leaf."""
    most, least = page_size - 35, (page_size - 12) * 32 // 255 - 23
    if size <= most:
        return size
    local = least + (size - least) % (page_size - 4)
    return local if local <= most else least
