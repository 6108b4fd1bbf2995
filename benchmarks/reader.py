"""Pull a layer on one connection and compare each byte with what has to come.

    python -m benchmarks.reader PORT PATH SIZE BLOCK plain|tls < headers.json

Says ``ready`` once it is connected, begins at the next line of stdin, and says when it began and when it ended by the
clock that all processes share. Exits with 1 where a byte is wrong.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from pathlib import Path

from benchmarks.client import Connection, head
from benchmarks.layer import BLOCK, NUMBER


def main() -> int:
    """Read it once."""
    port, path, size, block, kind = sys.argv[1:]
    headers = json.loads(sys.stdin.readline())
    wanted, got = bytearray(Path(block).read_bytes()), bytearray(BLOCK)
    view = memoryview(got)
    with Connection(int(port), tls=kind == "tls") as connection:
        print("ready", flush=True)
        sys.stdin.readline()
        start = time.monotonic()
        connection.socket.sendall(head("GET", path, headers, None))
        answer = connection.read_head().must(200)
        if answer.headers["content-length"] != size:
            return 1
        begun = len(connection.rest)
        view[:begun] = connection.rest
        for number in range(int(size) // BLOCK):
            fill(connection.socket, view[begun:], whole=kind == "plain")
            begun = 0
            wanted[:NUMBER] = number.to_bytes(NUMBER, "big")
            if got != wanted:
                return 1
        print(start, time.monotonic(), flush=True)
    return 0


def fill(source: socket.socket, view: memoryview, *, whole: bool) -> None:
    """Fill the view; a connection that ends first raises."""
    while view:
        count = source.recv_into(view, len(view), socket.MSG_WAITALL) if whole else source.recv_into(view)
        if not count:
            raise ConnectionResetError
        view = view[count:]


if __name__ == "__main__":
    sys.exit(main())
