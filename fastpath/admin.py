"""Status, health and metrics of a daemon over HTTP on a unix socket, on TCP if configured.

The daemon passes callables; nothing here knows what it serves. Both daemons use it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

# Operators, a scraper and a health probe need a handful; the rest would be somebody holding memory.
MAX_CONNECTIONS = 32
# From the first byte to the last: neither silence nor dribbling keeps a connection for longer.
CONNECTION_SECONDS = 10.0
MAX_HEADER = 4096
SHUTDOWN_SECONDS = 1.0

# sockaddr_un.sun_path, with its final zero (unix(7)).
MAX_SOCKET_PATH = 107

# HTTP status and what is sent as JSON.
Answer = tuple[int, Mapping[str, Any]]
# Of the query of a request for a change.
Change = Callable[[Mapping[str, str]], Awaitable[Answer]]

log = logging.getLogger(__name__)


class AdminError(Exception):
    """The server cannot be started."""


class AdminServer:
    """GET /status (JSON), /health (200, or 503 with the problem), /metrics (Prometheus text); POST for changes.

    Changes are for whoever may open the unix socket, its owner; over TCP, where anybody may ask, they are refused.
    """

    def __init__(
        self,
        path: Path,
        *,
        status: Callable[[], Mapping[str, Any]],
        health: Callable[[], str | None] = lambda: None,
        registry: CollectorRegistry | None = None,
        tcp: tuple[str, int] | None = None,
        changes: Mapping[str, Change] | None = None,
    ) -> None:
        """`health` returns what is wrong, None if nothing is; `tcp` is an address and port; `changes` by path."""
        self.path = path
        self._status = status
        self._health = health
        self._registry = registry if registry is not None else CollectorRegistry()
        self._tcp = tcp
        self._changes = changes or {}
        self._runner: web.AppRunner | None = None
        self._servers: list[asyncio.Server] = []
        self._deadlines: dict[web.RequestHandler, asyncio.TimerHandle] = {}
        self._identity: tuple[int, int] | None = None
        self.tcp_port: int | None = None

    async def start(self) -> None:
        """Listen. AdminError if another daemon does already, or if it cannot."""
        app = web.Application(client_max_size=1, middlewares=[_guard])
        app.router.add_get("/status", self._get_status)
        app.router.add_get("/health", self._get_health)
        app.router.add_get("/metrics", self._get_metrics)
        for target, change in self._changes.items():
            app.router.add_post(target, self._post(change))
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            shutdown_timeout=SHUTDOWN_SECONDS,
            max_line_size=MAX_HEADER,
            max_field_size=MAX_HEADER,
        )
        await self._runner.setup()
        try:
            listener = _listen(self.path)
            status = self.path.lstat()
            self._identity = (status.st_dev, status.st_ino)
            loop = asyncio.get_running_loop()
            self._servers.append(await loop.create_unix_server(self._accept, sock=listener, backlog=MAX_CONNECTIONS))
            if self._tcp is not None:
                await self._listen_tcp(*self._tcp)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop listening, end the connections, remove the socket if it is still ours."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        if self._identity is not None:
            with contextlib.suppress(OSError):
                status = self.path.lstat()
                if (status.st_dev, status.st_ino) == self._identity:
                    self.path.unlink()
            self._identity = None

    async def _listen_tcp(self, host: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(self._accept, host, port, backlog=MAX_CONNECTIONS)
        except OSError as error:
            raise AdminError(f"cannot listen on {host} port {port}: {error.strerror or error}") from None
        self._servers.append(server)
        self.tcp_port = server.sockets[0].getsockname()[1]

    def _accept(self) -> asyncio.BaseProtocol:
        """Protocol for a new connection: aiohttp's while there is room, and for a limited time."""
        assert self._runner is not None
        server = self._runner.server
        if server is None or len(server.connections) >= MAX_CONNECTIONS:
            return _Refusal()
        connection = server()
        self._limit(connection)
        return connection

    def _limit(self, connection: web.RequestHandler) -> None:
        """From now on."""
        self._deadlines[connection] = asyncio.get_running_loop().call_later(CONNECTION_SECONDS, self._close, connection)

    def _close(self, connection: web.RequestHandler) -> None:
        del self._deadlines[connection]
        connection.force_close()

    def _post(self, change: Change) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def post(request: web.Request) -> web.Response:
            transport = request.transport
            if transport is None or transport.get_extra_info("socket").family != socket.AF_UNIX:
                raise web.HTTPForbidden(text="changes are made over the unix socket\n")
            # It takes the time that it takes, and its answer has all of the connection's.
            if (deadline := self._deadlines.pop(request.protocol, None)) is not None:
                deadline.cancel()
            try:
                status, answer = await change(request.query)
            finally:
                self._limit(request.protocol)
            return web.json_response(answer, status=status, dumps=_dumps)

        return post

    async def _get_status(self, _: web.Request) -> web.Response:
        return web.json_response(self._status(), dumps=_dumps)

    async def _get_health(self, _: web.Request) -> web.Response:
        problem = self._health()
        answer: dict[str, Any] = {"healthy": problem is None}
        if problem is not None:
            answer["problem"] = problem
        return web.json_response(answer, status=200 if problem is None else 503, dumps=_dumps)

    async def _get_metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


class _Refusal(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


@web.middleware
async def _guard(request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
    """A failing callable is logged here and does not show its insides to the client."""
    try:
        response: web.StreamResponse = await handler(request)
    except web.HTTPException as error:  # 404, 405
        error.force_close()
        raise
    except Exception:
        log.exception("%s failed", request.path)
        response = web.Response(status=500, text="the daemon could not answer; see its log\n")
    response.force_close()  # nobody needs a second request on it
    return response


def _dumps(value: object) -> str:
    return json.dumps(value, default=str)


def _listen(path: Path) -> socket.socket:
    """A listening socket at `path`, for its owner only. A stale one is replaced, a live one refused."""
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise AdminError(f"{path}: longer than the {MAX_SOCKET_PATH} bytes that a socket's path may have")
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        _remove_stale(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(path))
            # Nobody connects in between: it does not listen yet.
            path.chmod(0o600)
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        if error.errno == errno.EADDRINUSE:  # a second daemon starting at the same moment
            raise AdminError(f"{path}: another daemon is starting there") from None
        raise AdminError(f"{path}: {error.strerror or error}") from None
    return listener


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise AdminError(f"{path}: exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except (TimeoutError, BlockingIOError):  # its backlog is full: it lives
            pass
    raise AdminError(f"{path}: another daemon answers there")
