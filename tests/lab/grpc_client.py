"""gRPC client of the lab: some calls, one after the other, on one channel.

    grpc_client.py TARGET CALL...

A call is SERVICE/METHOD[:BYTES] (a unary call with a message of that size, 16
unless stated) or SERVICE/METHOD*COUNT:BYTES (a stream of COUNT messages). Prints a line of
JSON for each: {"call", "code" (number), "status" (name), "message", "bytes", "seconds"}.
The exit status is 0 when every call came to an end, whatever its code.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc

MAX_MESSAGE = 64 * 1024 * 1024
TIMEOUT = float(os.environ.get("LAB_GRPC_TIMEOUT", "5"))
# Binary: to a server that takes it the library sends it as it is, from the second call on.
METADATA = (("lab-bin", b"\0\r\n "),)
CALL = re.compile(r"(?P<method>[\w.]+/\w+)(?:\*(?P<count>\d+))?(?::(?P<size>\d+))?")


class Connectivity:
    """What the channel says of its connection, so that no call is made on one that is gone."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.state: grpc.ChannelConnectivity | None = None
        self.changed = threading.Condition()
        channel.subscribe(self.take)

    def take(self, state: grpc.ChannelConnectivity) -> None:
        """Called by grpc, in a thread of its own, for each state."""
        with self.changed:
            self.state = state
            self.changed.notify_all()

    def lost(self) -> bool:
        """Wait until the channel has noticed that its connection is lost; False after TIMEOUT.

        A call learns of a reset before the channel does: one made in between goes to the
        dead connection and fails as well ("sendmsg: Broken pipe").
        """
        ready = grpc.ChannelConnectivity.READY
        with self.changed:
            return self.changed.wait_for(lambda: self.state is not ready, TIMEOUT)


def body(method: str, size: int, index: int = 0) -> bytes:
    """A message that names itself, so that a lost, doubled or leaked one shows."""
    text = f"{method} {index:08d} ".encode()
    return (text * (size // len(text) + 1))[:size]


def perform(channel: grpc.Channel, call: str) -> dict[str, Any]:
    """Do one call; raises ValueError for one that can't be read."""
    match = CALL.fullmatch(call)
    if not match:
        raise ValueError(call)
    size = int(match["size"] or 16)
    path = f"/{match['method']}"
    code, message, received, intact = grpc.StatusCode.OK, "", 0, True
    start = time.perf_counter()
    try:
        if match["count"]:
            sent = [body(match["method"], size, index) for index in range(int(match["count"]))]

            def requests() -> Iterator[bytes]:
                yield from sent

            answers = list(channel.stream_stream(path)(requests(), timeout=TIMEOUT, metadata=METADATA))
            received, intact = sum(map(len, answers)), answers == sent
        else:
            answer = channel.unary_unary(path)(body(match["method"], size), timeout=TIMEOUT, metadata=METADATA)
            received = len(answer)
            intact = answer == body(match["method"], size) or not path.startswith("/lab.Echo/")
    except grpc.RpcError as error:
        code, message = error.code(), error.details() or ""
    seconds = time.perf_counter() - start
    if not intact:
        code, message = grpc.StatusCode.DATA_LOSS, "the answer is not what was sent"
    return {
        "call": call,
        "code": code.value[0],
        "status": code.name,
        "message": message,
        "bytes": received,
        "seconds": round(seconds, 6),
    }


def main() -> int:
    """Perform the calls of the command line."""
    if len(sys.argv) < 3:
        sys.stderr.write("usage: grpc_client.py TARGET CALL...\n")
        return 2
    options = [
        ("grpc.max_receive_message_length", MAX_MESSAGE),
        ("grpc.max_send_message_length", MAX_MESSAGE),
        # One connection that is not tried again: a reset must show, not be smoothed over.
        ("grpc.enable_retries", 0),
    ]
    with grpc.insecure_channel(sys.argv[1], options=options) as channel:
        connectivity = Connectivity(channel)
        for call in sys.argv[2:]:
            answer = perform(channel, call)
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
            if answer["status"] == grpc.StatusCode.UNAVAILABLE.name:
                connectivity.lost()
    return 0


if __name__ == "__main__":
    sys.exit(main())
