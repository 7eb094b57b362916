"""Hands TCP connections on: for servers that listen on 127.0.0.1 only, and clients that are sent there."""

from __future__ import annotations

import asyncio
import contextlib

PIECE = 1 << 16


async def relay(host: str | None, port: int, to: tuple[str, int]) -> asyncio.Server:
    """Listens on a host's port (None: of all addresses) until closed; where one side ends, so does the other."""

    async def hand_on(near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(back):
            far, on = await asyncio.open_connection(*to)
            with contextlib.closing(on):
                await asyncio.gather(_copy(near, on), _copy(far, back), return_exceptions=True)

    return await asyncio.start_server(hand_on, host, port)


async def _copy(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
    # To close a side ends what is read from it, too.
    with contextlib.closing(to):
        while data := await source.read(PIECE):
            to.write(data)
            await to.drain()
