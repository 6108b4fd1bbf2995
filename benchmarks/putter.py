"""Put one manifest under many tags, by several connections of one process.

    python -m benchmarks.putter PORT CLIENTS < job.json

Prints the seconds that it took; every answer has to be 201.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time

from benchmarks.client import Unexpected, head

END = b"\r\n\r\n"


def main() -> None:
    """Each connection puts the next tag as soon as it is answered."""
    port, clients = map(int, sys.argv[1:])
    job = json.load(sys.stdin)
    body = job["body"].encode()
    requests = [head("PUT", job["path"] + tag, job["headers"], len(body)) + body for tag in reversed(job["tags"])]
    poll = select.epoll()
    sockets: dict[int, socket.socket] = {}
    for _ in range(min(clients, len(requests))):
        made = socket.create_connection(("127.0.0.1", port))
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sockets[made.fileno()] = made
        poll.register(made, select.EPOLLIN)
    start = time.perf_counter()
    for made in sockets.values():
        made.sendall(requests.pop())
    waiting = set(sockets)
    while waiting:
        for fd, _ in poll.poll():
            data = sockets[fd].recv(1 << 16)
            if data[:12] != b"HTTP/1.1 201" or data[-4:] != END:
                msg = f"an answer to PUT: {data[:500]!r}"
                raise Unexpected(msg)
            if requests:
                sockets[fd].sendall(requests.pop())
            else:
                waiting.discard(fd)
    print(time.perf_counter() - start)


if __name__ == "__main__":
    main()
