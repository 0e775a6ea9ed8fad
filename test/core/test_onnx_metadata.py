import os
import tracemalloc

import onnx_files
import pytest

from lightglue_ros.core import ModelError
from lightglue_ros.core.contract import GraphInfo
from lightglue_ros.core.onnx_metadata import read_metadata

GIBIBYTE = 1 << 30


@pytest.fixture
def written(tmp_path):
    """Writes a file of bytes."""

    def write(data):
        path = tmp_path / "matcher.onnx"
        path.write_bytes(data)
        return path

    return write


@pytest.mark.parametrize("graph", ["extractor", "matcher"])
def test_the_metadata_are_those_that_onnxruntime_reads(model_folder, graph):
    import onnxruntime

    path = model_folder / f"{graph}.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert read_metadata(path) == session.get_modelmeta().custom_metadata_map


def test_gigabytes_of_weights_are_not_read(written):
    path = written(onnx_files.varint(7 << 3 | 2) + onnx_files.varint(GIBIBYTE))
    with path.open("r+b") as file:
        file.truncate(file.seek(0, os.SEEK_END) + GIBIBYTE)  # takes no room on the disk
        file.seek(0, os.SEEK_END)
        file.write(onnx_files.metadata())
    tracemalloc.start()
    try:
        found = read_metadata(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert GraphInfo.from_metadata(found, str(path)) == onnx_files.INFO


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "it has no graph"),
        (onnx_files.model()[:40], "bytes should follow byte"),
        (onnx_files.model()[:-1], "bytes should follow byte"),
        (onnx_files.model() + b"\xff", "it ends within a number"),
        (b"<!DOCTYPE html><html>404 Not Found</html>", "it is broken"),
        (b"\xff" * 100, "no protobuf"),
    ],
    ids=["empty", "cut in the graph", "cut in the metadata", "one byte more", "web page", "noise"],
)
def test_a_broken_file_is_called_that_with_the_command_that_makes_it_again(written, data, says):
    with pytest.raises(ModelError, match=rf"cannot load .*{says}.*fix: copy the file again, or export it"):
        read_metadata(written(data))


def test_a_folder_and_a_missing_file_are_named(tmp_path):
    for path, says in ((tmp_path, "Is a directory"), (tmp_path / "none.onnx", "No such file")):
        with pytest.raises(ModelError, match=f"cannot load .*{says}"):
            read_metadata(path)


def test_a_file_that_is_cut_or_changed_anywhere_gives_metadata_or_the_error_of_a_model(written):
    whole = onnx_files.model()
    changed = (whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :] for at in range(len(whole)))
    refused = 0
    for data in (*(whole[:at] for at in range(len(whole))), *changed):
        try:
            GraphInfo.from_metadata(read_metadata(written(data)), "matcher.onnx")
        except ModelError:
            refused += 1
    assert refused > len(whole)
