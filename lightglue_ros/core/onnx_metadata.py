"""Reads the metadata of an .onnx file without ONNX Runtime, and without reading its weights.

An .onnx file is a protobuf message (ModelProto of onnx.proto). Each field has a number, and the reader skips
the other fields by their lengths. So it can name what is wrong before ONNX Runtime fails to load the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lightglue_ros.core.contract import export_command
from lightglue_ros.core.files import mistaken_file
from lightglue_ros.errors import ModelError

# Numbers of fields: of ModelProto, and of its StringStringEntryProto.
_GRAPH, _METADATA = 7, 14
_KEY, _VALUE = 1, 2
# Wire types of protobuf whose length does not stand in the file.
_VARINT, _LENGTHS = 0, {1: 8, 5: 4}
_DELIMITED = 2
_LONGEST_BEGINNING = 64


def read_metadata(path: Path) -> dict[str, str]:
    """Read the metadata entries of an .onnx file.

    Raises:
        ModelError: the file cannot be read, or is no whole .onnx file.
    """
    again = f"copy the file again, or export it again: {export_command(path)}"
    try:
        with path.open("rb") as file:
            if mistaken := mistaken_file(file.read(_LONGEST_BEGINNING)):
                found, fix = mistaken
                raise ModelError(f"{path} is {found}", allowed="the .onnx file itself", fix=fix)
            file.seek(0)
            return _read_model(file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise ModelError(f"cannot load {path}: {error.strerror or error}", fix=again) from error
    except ValueError as error:
        raise ModelError(
            f"cannot load {path}: it is broken ({error})",
            allowed="a whole .onnx file written by 'lightglue_ros export'",
            fix=again,
        ) from error


def _read_model(file: BinaryIO, end: int) -> dict[str, str]:
    metadata, has_graph = {}, False
    for number, field_end in _fields(file, end):
        has_graph |= number == _GRAPH
        if number == _METADATA:
            entry = {it: file.read(stop - file.tell()).decode() for it, stop in _fields(file, field_end)}
            metadata[entry.get(_KEY, "")] = entry.get(_VALUE, "")
    if not has_graph:
        raise ValueError("it has no graph")
    return metadata


def _fields(file: BinaryIO, end: int) -> Iterator[tuple[int, int]]:
    """Yield the number and the end of each field with a length, while the file is at the field's value.

    Args:
        end: where the message ends in the file.
    """
    while file.tell() < end:
        key = _read_varint(file)
        number, wire_type = key >> 3, key & 7
        if wire_type == _VARINT:
            _read_varint(file)
            continue
        if wire_type != _DELIMITED and wire_type not in _LENGTHS:
            raise ValueError(f"no protobuf before byte {file.tell()}")
        length = _LENGTHS.get(wire_type) or _read_varint(file)
        field_end = file.tell() + length
        if field_end > end:
            raise ValueError(f"{length:,} bytes should follow byte {file.tell():,}, and it has {end:,}")
        yield number, field_end
        file.seek(field_end)


def _read_varint(file: BinaryIO) -> int:
    """Read a whole number: 7 bits a byte, lowest first; the top bit says that another byte follows."""
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError("it ends within a number")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError(f"no protobuf before byte {file.tell()}")
