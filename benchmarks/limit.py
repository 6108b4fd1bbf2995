"""The limit of a push: the smallest program that reads bytes from a socket, hashes, writes and syncs them.

    python -m benchmarks.limit PORT FOLDER

A client sends eight bytes of length and then the bytes; once they are on the disk, it gets their SHA-256.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
from pathlib import Path

PIECE = 1 << 20


def main() -> None:
    """Serve one client after the other until the end by a signal."""
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            client, _ = listener.accept()
            with client:
                receive(client, folder / "received")


def receive(client: socket.socket, path: Path) -> None:
    """Take one transfer."""
    header = client.recv(8, socket.MSG_WAITALL)
    if len(header) < 8:  # noqa: PLR2004 - a probe that only looks whether somebody listens
        return
    left = int.from_bytes(header, "big")
    hasher, view = hashlib.sha256(), memoryview(bytearray(PIECE))
    path.unlink(missing_ok=True)
    with path.open("wb", buffering=0) as file:
        while left:
            count = client.recv_into(view)
            hasher.update(view[:count])
            file.write(view[:count])
            left -= count
        os.fsync(file.fileno())
    client.sendall(hasher.digest())


if __name__ == "__main__":
    main()
