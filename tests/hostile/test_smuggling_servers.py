"""What real servers make of the table of requests: nginx and aiohttp (its parser in Python, which shares nothing with
ours) read of those that we accept the very requests that we read. Each runs unprivileged, on a socket in a folder.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from parsers.base import TO_SERVER, Request
from parsers.http1 import Http1Parser
from tests.hostile.smuggling import FORMS, HOST, Form, Reading

ACCEPTED = [form for form in FORMS if form.reading != Reading.REFUSED]
# The server closes when it has answered this; it reads it as a request only if it reads all before as we do.
END = b"GET /end HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
NGINX = """
daemon off; master_process off; pid {0}/pid; error_log stderr crit;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {0}/body; proxy_temp_path {0}/proxy; fastcgi_temp_path {0}/fastcgi; uwsgi_temp_path {0}/uwsgi;
    scgi_temp_path {0}/scgi;
    server {{ listen unix:{0}/socket; location / {{ return 200 "[$request_method $uri]"; }} }}
}}
"""
AIOHTTP = """
import sys
from aiohttp import web

async def answer(request):
    await request.read()
    return web.Response(text=f"[{request.method} {request.path}]")

app = web.Application()
app.router.add_route("*", "/{path:.*}", answer)
web.run_app(app, path=sys.argv[1] + "/socket", print=None, access_log=None)
"""


@contextmanager
def served(command: list[str], folder: Path) -> Iterator[Path]:
    """Its socket, once it listens."""
    # Without its compiled parts aiohttp takes the parser in Python; what is compiled is llhttp, as ours.
    with subprocess.Popen(command, env={**os.environ, "AIOHTTP_NO_EXTENSIONS": "1"}) as server:
        try:
            deadline = time.monotonic() + 20
            while not answers(folder / "socket"):
                assert server.poll() is None, "it did not start"
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield folder / "socket"
        finally:
            server.terminate()


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as one:
        return one.connect_ex(str(path)) == 0


@pytest.fixture(scope="module", params=["nginx", "aiohttp"])
def server(request: pytest.FixtureRequest) -> Iterator[Path]:
    # pytest's own folders have names longer than a socket's may be.
    with tempfile.TemporaryDirectory(prefix="ms-") as name:
        folder = Path(name)
        (folder / "nginx.conf").write_text(NGINX.format(folder))
        (folder / "app.py").write_text(AIOHTTP)
        commands = {
            "nginx": ["/usr/sbin/nginx", "-e", "stderr", "-p", name, "-c", f"{name}/nginx.conf"],
            "aiohttp": [sys.executable, f"{name}/app.py", name],
        }
        with served(commands[request.param], folder) as path:
            yield path


def asked_of(path: Path, data: bytes) -> tuple[list[bytes], list[bytes]]:
    """What a server answers: the requests that it tells of, and the statuses."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(data)
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    return re.findall(rb"\[(.*?)\]", answer), re.findall(rb"HTTP/1\.[01] (\d\d\d)", answer)


def ours(data: bytes) -> list[bytes]:
    events = Http1Parser().feed(TO_SERVER, data)
    return [event.method + b" " + event.path for event in events if isinstance(event, Request)]


@pytest.mark.parametrize("form", ACCEPTED, ids=str)
def test_the_server_reads_what_we_read(server: Path, form: Form) -> None:
    requests, statuses = asked_of(server, form.data + END)
    expected = ours(form.data + END)
    assert b"GET /end" in expected
    if statuses[-1] == b"400":
        # Stricter than we are: what it took before that, we read as well.
        assert requests == expected[: len(requests)]
    else:
        assert requests == expected


def test_hardly_a_form_is_refused_by_the_server(server: Path) -> None:
    """So that the above says something."""
    refused = [form for form in ACCEPTED if asked_of(server, form.data + END)[1][-1] == b"400"]
    assert len(refused) <= len(ACCEPTED) // 4, refused
