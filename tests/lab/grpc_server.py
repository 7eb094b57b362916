"""gRPC server of the lab, without generated code: messages are plain bytes.

    grpc_server.py PORT

Services: `lab.Echo` with Say (answers what it got), Deny (the same; rules refuse
it by name) and Chat (a stream, echoed), `lab.Admin` with Wipe.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from concurrent import futures
from typing import Any

import grpc

# A big message must fit; the default is 4 MiB.
MAX_MESSAGE = 64 * 1024 * 1024


def say(request: bytes, _context: Any) -> bytes:
    """Echo."""
    return request


def chat(requests: Iterable[bytes], _context: Any) -> Iterator[bytes]:
    """Echo a stream, message by message."""
    yield from requests


def wipe(_request: bytes, _context: Any) -> bytes:
    """What an administrator may do, and nobody else."""
    return b"wiped"


def main() -> None:
    """Serve until killed."""
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=8),
        options=[("grpc.max_receive_message_length", MAX_MESSAGE), ("grpc.max_send_message_length", MAX_MESSAGE)],
    )
    unary = grpc.unary_unary_rpc_method_handler
    stream = grpc.stream_stream_rpc_method_handler(chat)
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler("lab.Echo", {"Say": unary(say), "Deny": unary(say), "Chat": stream}),
            grpc.method_handlers_generic_handler("lab.Admin", {"Wipe": unary(wipe)}),
        )
    )
    server.add_insecure_port(f"[::]:{sys.argv[1]}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
