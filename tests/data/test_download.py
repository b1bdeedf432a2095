"""fetch() against a real HTTP server on 127.0.0.1 that can cut connections, ignore ranges and flip bytes."""

import errno
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from genai.core.config import UserError
from genai.data import download

BODY = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def server(monkeypatch):
    """An HTTP server; `.cut` bytes are sent before the connection is closed, `.log` lists the ranges asked for."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", download.MIRROR):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked = self.headers.get("Range")
            self.server.log.append(asked)
            if self.path == "/missing":
                return self.send_error(404)
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.ranges else 0
            if start >= len(self.server.body):
                return self.send_error(416)
            self.send_response(206 if asked and self.server.ranges else 200)
            if asked and self.server.ranges:
                self.send_header("Content-Range", f"bytes {start}-{len(self.server.body) - 1}/{len(self.server.body)}")
            self.send_header("Content-Length", str(len(self.server.body) - start))
            self.end_headers()
            self.wfile.write(self.server.body[start : start + self.server.cut])

        def log_message(self, *_):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.body, httpd.cut, httpd.ranges, httpd.log = BODY, len(BODY), True, []
    httpd.address = f"http://127.0.0.1:{httpd.server_port}/file"
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()


def test_downloads_once(server, tmp_path):
    for _ in range(2):
        path = download.fetch([server.address], "a/file", sha256=SHA256, into=tmp_path)
        assert path == tmp_path / "a/file" and path.read_bytes() == BODY
    assert server.log == [None]
    assert not path.with_name("file.part").exists()


def test_goes_on_where_the_connection_was_cut(server, tmp_path):
    server.cut = 8 * download.CHUNK
    path = download.fetch([server.address], "file", sha256=SHA256, into=tmp_path)
    assert path.read_bytes() == BODY
    assert server.log == [None, f"bytes={8 * download.CHUNK}-", f"bytes={16 * download.CHUNK}-"]


def test_the_next_call_resumes_what_the_last_one_received(server, tmp_path):
    server.cut = 3 * download.CHUNK
    with pytest.raises(UserError, match="connection cut"):
        download.fetch([server.address], "file", sha256=SHA256, into=tmp_path)
    assert not (tmp_path / "file").exists() and (tmp_path / "file.part").stat().st_size == 9 * download.CHUNK
    server.cut = len(BODY)
    assert download.fetch([server.address], "file", sha256=SHA256, into=tmp_path).read_bytes() == BODY
    assert server.log[-1] == f"bytes={9 * download.CHUNK}-"


def test_a_server_that_ignores_ranges_starts_over(server, tmp_path):
    server.ranges = False
    (tmp_path / "file.part").write_bytes(BODY[:1000])
    assert download.fetch([server.address], "file", sha256=SHA256, into=tmp_path).read_bytes() == BODY
    assert server.log == ["bytes=1000-"]


@pytest.mark.parametrize("part", [b"not the beginning of it", BODY + b"too long", BODY])
def test_a_part_of_another_file_is_thrown_away(server, tmp_path, part):
    (tmp_path / "file.part").write_bytes(part)
    assert download.fetch([server.address], "file", sha256=SHA256, into=tmp_path).read_bytes() == BODY


def test_one_wrong_byte_is_refused(server, tmp_path):
    server.body = BODY[:-1] + bytes([BODY[-1] ^ 1])
    found = hashlib.md5(server.body).hexdigest()
    with pytest.raises(UserError, match=f"wrong md5: expected .*, found {found}") as error:
        download.fetch([server.address], "file", md5=hashlib.md5(BODY).hexdigest(), into=tmp_path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "file").exists() and not (tmp_path / "file.part").exists()


def test_a_cached_file_that_rotted_is_fetched_again(server, tmp_path):
    (tmp_path / "file").write_bytes(BODY[:-1])
    assert download.fetch([server.address], "file", sha256=SHA256, into=tmp_path).read_bytes() == BODY


def test_the_next_address_is_tried(server, tmp_path):
    missing = server.address.replace("/file", "/missing")
    assert download.fetch([missing, server.address], "file", sha256=SHA256, into=tmp_path).read_bytes() == BODY


def test_no_network_names_the_addresses_and_the_mirror(server, tmp_path):
    addresses = [server.address.replace("/file", "/missing"), "http://127.0.0.1:1/file"]
    with pytest.raises(UserError) as error:
        download.fetch(addresses, "folder/file", sha256=SHA256, into=tmp_path)
    line = str(error.value)
    assert "\n" not in line and "HTTP status 404" in line and "no connection" in line
    assert all(address in line for address in addresses) and download.MIRROR in line and "folder/file" in line


def test_the_mirror_comes_before_the_network(server, tmp_path, monkeypatch):
    mirror = tmp_path / "mirror"
    (mirror / "a").mkdir(parents=True)
    (mirror / "a" / "file").write_bytes(BODY)
    monkeypatch.setenv(download.MIRROR, str(mirror))
    assert download.fetch([server.address], "a/file", sha256=SHA256, into=tmp_path / "cache").read_bytes() == BODY
    assert server.log == []


def test_a_wrong_byte_in_the_mirror_is_refused(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(BODY + b"!")
    monkeypatch.setenv(download.MIRROR, str(tmp_path))
    with pytest.raises(UserError, match="wrong sha256"):
        download.fetch([server.address], "file", sha256=SHA256, into=tmp_path / "cache")
    assert not (tmp_path / "cache" / "file").exists()


def test_a_mirror_that_is_no_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv(download.MIRROR, str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="GENAI_DATA_MIRROR: .*nowhere.* should be a folder"):
        download.fetch([], "file", sha256=SHA256, into=tmp_path)


def test_a_full_disk_is_one_line(server, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download.os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        download.fetch([server.address], "file", sha256=SHA256, into=tmp_path)
    assert not (tmp_path / "file").exists()
