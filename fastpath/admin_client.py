"""Ask a daemon over its unix socket. Standard library only: the commands start fast."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

from fastpath.exit import CommandError, ExitStatus

TIMEOUT = 3.0
MAX_ANSWER = 16 * 1024 * 1024


class DaemonUnreachableError(CommandError):
    """Nobody answers on the socket, or not in time, or not sensibly."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ExitStatus.UNREACHABLE)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def fetch(path: Path, target: str, *, timeout: float = TIMEOUT, method: str = "GET") -> tuple[int, bytes]:
    """HTTP status and body of a GET, or a POST without a body. DaemonUnreachableError says why there is none; a lack of
    permission is a CommandError with its own status.
    """
    connection = _UnixConnection(path, timeout)
    try:
        connection.request(method, target)
        response = connection.getresponse()
        body = response.read(MAX_ANSWER + 1)
        if response.length and len(body) <= MAX_ANSWER:  # a read with a limit does not say so itself
            raise http.client.IncompleteRead(body, response.length)
    except PermissionError:
        raise CommandError(f"{path}: permission denied (are you root?)", ExitStatus.UNAVAILABLE) from None
    except TimeoutError:
        raise DaemonUnreachableError(f"{path}: the daemon did not answer within {timeout:g} s") from None
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        raise DaemonUnreachableError(f"{path}: no daemon answers there; is it running?") from None
    except (OSError, http.client.HTTPException) as error:
        raise DaemonUnreachableError(f"{path}: no sensible answer: {error}") from None
    finally:
        connection.close()
    if len(body) > MAX_ANSWER:
        raise DaemonUnreachableError(f"{path}: the answer is larger than {MAX_ANSWER} bytes")
    return response.status, body


def fetch_status(path: Path, *, timeout: float = TIMEOUT) -> dict[str, Any]:
    """The daemon's /status."""
    code, body = fetch(path, "/status", timeout=timeout)
    if code != 200:
        raise DaemonUnreachableError(f"{path}: the daemon answers with HTTP status {code}")
    return _content(path, body)


def request_change(path: Path, target: str, *, timeout: float) -> tuple[int, dict[str, Any]]:
    """HTTP status and answer of a POST; 200 is success."""
    code, body = fetch(path, target, timeout=timeout, method="POST")
    if code == 404:
        raise DaemonUnreachableError(f"{path}: the daemon there knows nothing of this; restart it")
    return code, _content(path, body)


def _content(path: Path, body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise DaemonUnreachableError(f"{path}: what answers there is no microseg daemon")
    return content
