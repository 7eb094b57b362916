from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from fastpath.admin import AdminServer
from slowpath.cli.main import main


@pytest.mark.parametrize("by", ["socket", "config"])
def test_asks_the_daemon(by: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "slowpath.sock"
    config = tmp_path / "gateway.yaml"
    config.write_text(f"run_dir: {tmp_path}\n")
    where = ["--socket", str(path)] if by == "socket" else ["--config", str(config)]

    async def serve() -> None:
        server = AdminServer(path, status=lambda: {"revision": 7})
        await server.start()
        try:
            assert await asyncio.to_thread(main, ["status", *where]) == 0
            assert await asyncio.to_thread(main, ["status", "-o", "json", *where]) == 0
        finally:
            await server.stop()

    asyncio.run(serve())
    text, _, answer = capsys.readouterr().out.partition("\n")
    assert text == "revision  7"
    assert json.loads(answer) == {"revision": 7}


def test_no_daemon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--socket", str(tmp_path / "none")]) == 4
    assert "no daemon answers" in capsys.readouterr().err
