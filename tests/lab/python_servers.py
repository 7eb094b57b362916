"""Servers of the lab that are Python packages, in one process.

    python -m tests.lab.python_servers CERTIFICATE KEY FOLDER BROKER

FTP on 21 (pyftpdlib; user and password `lab`, the folder's files, passive ports 30000-30009), SMTP on 25 (aiosmtpd,
with STARTTLS; takes every message, keeps none), WebSocket on 8765 (websockets; an echo), QUIC on UDP 4433 (aioquic;
every stream an echo). Kafka on 9092 and MongoDB on 27017 are mocks.py's; the port of 127.0.0.1 to which Kafka's clients
are sent is written to BROKER.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
import sys
import threading
from pathlib import Path

import aioquic.asyncio
import websockets.asyncio.server
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import QuicEvent, StreamDataReceived
from aiosmtpd.smtp import SMTP
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import FTPServer

from tests.lab import mocks
from tests.lab.relay import relay

PASSIVE = range(30000, 30010)


class Echo(aioquic.asyncio.QuicConnectionProtocol):
    """What comes on a stream goes back on it."""

    def quic_event_received(self, event: QuicEvent) -> None:
        """An event of the connection."""
        if isinstance(event, StreamDataReceived):
            self._quic.send_stream_data(event.stream_id, event.data, event.end_stream)
            self.transmit()


class Sink:
    """A handler that takes every message."""

    async def handle_DATA(self, *_: object) -> str:
        """The answer to a message."""
        return "250 taken"


async def echo(connection: websockets.asyncio.server.ServerConnection) -> None:
    """Every message goes back."""
    async for message in connection:
        await connection.send(message)


def serve_files(folder: str) -> None:
    """FTP."""
    authorizer = DummyAuthorizer()
    authorizer.add_user("lab", "lab", folder, perm="elradfmw")

    class Handler(FTPHandler):
        passive_ports = PASSIVE

    Handler.authorizer = authorizer
    server = FTPServer(("::", 21), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()


async def main(certificate: str, key: str, folder: str, broker: str) -> None:
    """Serve until killed."""
    quic = QuicConfiguration(is_client=False, alpn_protocols=["h3"])
    quic.load_cert_chain(certificate, key)
    await aioquic.asyncio.serve("::", 4433, configuration=quic, create_protocol=Echo)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    mail = functools.partial(SMTP, Sink(), hostname="mail.lab.test", tls_context=context)
    await asyncio.get_running_loop().create_server(mail, None, 25)
    await websockets.asyncio.server.serve(echo, None, 8765)
    serve_files(folder)
    _cluster, port = mocks.kafka()
    Path(broker).write_text(str(port))
    await relay(None, 9092, (mocks.HERE, port))
    await relay(None, 27017, (mocks.HERE, mocks.mongodb().port))
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
