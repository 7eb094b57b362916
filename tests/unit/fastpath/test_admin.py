from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter

from fastpath import admin
from fastpath.admin import AdminError, AdminServer
from fastpath.admin_client import DaemonUnreachableError, fetch, fetch_status, request_change


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "daemon.sock"


@contextlib.asynccontextmanager
async def serving(path: Path, **options: Any) -> AsyncIterator[AdminServer]:
    server = AdminServer(path, **{"status": lambda: {"sessions": 3}, **options})
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def ask(path: Path, target: str) -> tuple[int, bytes]:
    return await asyncio.to_thread(fetch, path, target, timeout=5.0)


def test_status_health_and_metrics(path: Path) -> None:
    problem: str | None = None
    registry = CollectorRegistry()
    Counter("microseg_packets", "Packets judged.", registry=registry).inc(5)

    async def main() -> None:
        nonlocal problem
        async with serving(path, health=lambda: problem, registry=registry):
            assert await asyncio.to_thread(fetch_status, path) == {"sessions": 3}
            assert await ask(path, "/health") == (200, b'{"healthy": true}')
            problem = "no heartbeat"
            code, body = await ask(path, "/health")
            assert (code, json.loads(body)) == (503, {"healthy": False, "problem": "no heartbeat"})
            code, body = await ask(path, "/metrics")
            assert code == 200
            assert b"\nmicroseg_packets_total 5.0\n" in body
            assert (await ask(path, "/nothing"))[0] == 404

    asyncio.run(main())
    assert not path.exists()


def test_only_the_owner_may_connect(path: Path) -> None:
    async def main() -> None:
        old = os.umask(0)
        try:
            async with serving(path):
                assert stat.S_IMODE(path.stat().st_mode) == 0o600
                assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750
        finally:
            os.umask(old)

    asyncio.run(main())


def test_stale_socket_is_replaced(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    async def main() -> None:
        async with serving(path):
            assert (await ask(path, "/health"))[0] == 200

    asyncio.run(main())


def test_live_socket_is_refused_and_left_alone(path: Path) -> None:
    async def main() -> None:
        async with serving(path):
            with pytest.raises(AdminError, match="another daemon answers"):
                async with serving(path):
                    pass
            assert (await ask(path, "/health"))[0] == 200

    asyncio.run(main())


def test_a_successors_socket_is_left_alone(path: Path) -> None:
    async def main() -> None:
        async with serving(path):
            path.unlink()
            path.write_text("another's")
        assert path.read_text() == "another's"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("name", "message"), [("x" * 120, "longer than the 107 bytes"), ("file", "is not a socket"), ("file/x", "file")]
)
def test_bad_places(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "file").touch()

    async def main() -> None:
        with pytest.raises(AdminError, match=message):
            async with serving(tmp_path / name):
                pass

    asyncio.run(main())


def test_failing_callable_is_logged_not_shown(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def status() -> dict[str, Any]:
        raise RuntimeError("secret")

    async def main() -> None:
        async with serving(path, status=status):
            code, body = await ask(path, "/status")
            assert code == 500
            assert b"secret" not in body
            with pytest.raises(DaemonUnreachableError, match="500"):
                await asyncio.to_thread(fetch_status, path)

    with caplog.at_level(logging.ERROR):
        asyncio.run(main())
    assert "secret" in caplog.text


async def talk(path: Path, request: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(request)
    with contextlib.suppress(ConnectionError):
        await writer.drain()
    answer = b""
    with contextlib.suppress(ConnectionError):
        answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return answer


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi", b"405"),
        (b"junk\r\n\r\n", b"400"),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"GET /status HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", b"400"),
    ],
)
def test_bad_requests(path: Path, request_: bytes, status: bytes) -> None:
    async def main() -> None:
        async with serving(path):
            assert (await talk(path, request_)).split()[1] == status
            assert (await ask(path, "/health"))[0] == 200

    asyncio.run(main())


def test_connections_are_bounded_in_number_and_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "MAX_CONNECTIONS", 3)
    monkeypatch.setattr(admin, "CONNECTION_SECONDS", 0.3)

    async def main() -> None:
        async with serving(path):
            idle = [await asyncio.open_unix_connection(str(path)) for _ in range(3)]
            await asyncio.sleep(0.05)
            assert await talk(path, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n") == b""
            for reader, _ in idle:
                assert await asyncio.wait_for(reader.read(), 5) == b""
            assert (await ask(path, "/health"))[0] == 200
            for _, writer in idle:
                writer.close()
                await writer.wait_closed()

    asyncio.run(main())


def test_changes_over_the_unix_socket_only(path: Path) -> None:
    asked: list[Any] = []

    async def change(query: Any) -> tuple[int, dict[str, Any]]:
        asked.append(dict(query))
        return 422, {"problems": []}

    async def main() -> None:
        async with serving(path, tcp=("127.0.0.1", 0), changes={"/change": change}) as server:
            got = await asyncio.to_thread(request_change, path, "/change?why=that%26this", timeout=5.0)
            assert got == (422, {"problems": []})
            assert asked == [{"why": "that&this"}]
            with pytest.raises(DaemonUnreachableError, match="knows nothing of this"):
                await asyncio.to_thread(request_change, path, "/other", timeout=5.0)
            assert (await ask(path, "/change"))[0] == 405
            reader, writer = await asyncio.open_connection("127.0.0.1", server.tcp_port)
            writer.write(b"POST /change HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
            assert b"403 Forbidden" in await reader.read()
            writer.close()
            await writer.wait_closed()
            assert len(asked) == 1

    asyncio.run(main())


def test_the_answer_to_a_slow_change_still_comes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "CONNECTION_SECONDS", 0.1)

    async def change(_: Any) -> tuple[int, dict[str, Any]]:
        await asyncio.sleep(0.3)
        return 200, {}

    async def main() -> None:
        async with serving(path, changes={"/change": change}):
            assert await asyncio.to_thread(request_change, path, "/change", timeout=5.0) == (200, {})

    asyncio.run(main())


def test_tcp_if_configured(path: Path) -> None:
    async def main() -> None:
        async with serving(path, tcp=("127.0.0.1", 0)) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.tcp_port)
            writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" in await reader.read()
            writer.close()
            await writer.wait_closed()
            with pytest.raises(AdminError, match=r"cannot listen on 127\.0\.0\.1 port"):
                async with serving(path.with_name("other"), tcp=("127.0.0.1", server.tcp_port)):
                    pass
            assert not path.with_name("other").exists()

    asyncio.run(main())
