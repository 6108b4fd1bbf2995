"""Load of HEAD requests on several connections; wrk waits for the body that such an answer announces and never has.

    python -m benchmarks.heads PORT PATH SECONDS CONNECTIONS CONTAINS < headers.json

Each answer has to be a 200 and to contain CONTAINS, the digest of what was asked for.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time

from benchmarks.client import Unexpected, head

END = b"\r\n\r\n"


def load(port: int, request: bytes, seconds: float, connections: int, contains: bytes) -> list[float]:
    """How long each answer took. Each connection asks again as soon as it is answered."""
    poll = select.epoll()
    sockets: dict[int, socket.socket] = {}
    sent: dict[int, float] = {}
    times: list[float] = []
    for _ in range(connections):
        made = socket.create_connection(("127.0.0.1", port))
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sockets[made.fileno()] = made
        poll.register(made, select.EPOLLIN)
    until = time.perf_counter() + seconds
    for fd, made in sockets.items():
        sent[fd] = time.perf_counter()
        made.sendall(request)
    while sent:
        for fd, _ in poll.poll():
            data = sockets[fd].recv(1 << 16)
            if data[:12] != b"HTTP/1.1 200" or data[-4:] != END or contains not in data:
                msg = f"an answer to HEAD: {data[:300]!r}"
                raise Unexpected(msg)
            now = time.perf_counter()
            times.append(now - sent[fd])
            if now < until:
                sent[fd] = now
                sockets[fd].send(request)
            else:
                del sent[fd]
    return times


def main() -> None:
    """Print how many answers there were, in how many seconds, and p99."""
    port, path, seconds, connections, contains = sys.argv[1:]
    request = head("HEAD", path, json.load(sys.stdin), None)
    start = time.perf_counter()
    times = sorted(load(int(port), request, float(seconds), int(connections), contains.encode()))
    took = time.perf_counter() - start
    print(json.dumps({"requests": len(times), "seconds": took, "p99": times[len(times) * 99 // 100]}))


if __name__ == "__main__":
    main()
