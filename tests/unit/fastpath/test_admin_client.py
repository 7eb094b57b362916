from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fastpath.admin_client import DaemonUnreachableError, fetch, fetch_status
from fastpath.exit import ExitStatus


@contextmanager
def answering(path: Path, answer: bytes | None) -> Iterator[None]:
    """One connection that gets `answer`, or none at all."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        stop = threading.Event()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                if answer is None:
                    stop.wait(5)
                else:
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def http(body: bytes, code: int = 200) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (code, len(body), body)


def test_fetch(tmp_path: Path) -> None:
    with answering(tmp_path / "s", http(b'{"a": 1}', 503)):
        assert fetch(tmp_path / "s", "/health") == (503, b'{"a": 1}')
    with answering(tmp_path / "t", http(b'{"a": 1}')):
        assert fetch_status(tmp_path / "t") == {"a": 1}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "no sensible answer"),
        (b"SSH-2.0-x\r\n", "no sensible answer"),
        (http(b"[]"), "no microseg daemon"),
        (http(b"hello"), "no microseg daemon"),
        (http(b"\xff"), "no microseg daemon"),
        (http(b"", 404), "HTTP status 404"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nshort", "no sensible answer"),
        (None, "did not answer within"),
    ],
)
def test_bad_answers(tmp_path: Path, answer: bytes | None, message: str) -> None:
    with answering(tmp_path / "s", answer), pytest.raises(DaemonUnreachableError, match=message) as caught:
        fetch_status(tmp_path / "s", timeout=0.2)
    assert caught.value.status == ExitStatus.UNREACHABLE


def test_nobody_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead"))
    for name in ("none", "dead", "none/none", "file/x"):
        with pytest.raises(DaemonUnreachableError, match="is it running"):
            fetch_status(tmp_path / name)
    with pytest.raises(DaemonUnreachableError):
        fetch_status(tmp_path / ("x" * 200))


def test_standard_library_only() -> None:
    script = "import sys, fastpath.admin_client; print([n for n in ('aiohttp', 'asyncio', 'yaml') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout == b"[]\n"
