"""Many clients and a collector that never rests: nothing that is needed is deleted, and all garbage is.

Every client has repositories of its own to delete in, and blobs of few contents in common with all others, so that the
same digests are pushed, mounted, named, deleted and collected at once. Each knows what it was promised.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from support.server import Server, polly_server, running_server
from support.wire_client import CONFIG, OCI_MANIFEST, Image, Person, admin, descriptor, dumps, sha256

CLIENTS = 30
CONTENTS = 40
"""Layers that all clients have in common."""
LEASE = 10
"""Seconds that a blob is promised for: more than a push takes here, and few, so that there is garbage."""
SIGN_IN = 300
"""Seconds after which a client gets a new token."""
RUNS = 5
"""Runs of the collector after the clients have stopped; then all garbage is gone."""
OPTIONS = (
    *("--lease-seconds", str(LEASE), "--grace-seconds", "1", "--collect-seconds", "1", "--trash-days", "0"),
    *("--upload-seconds", "60", "--log-level", "error"),
)


@dataclass
class Client(threading.Thread):
    """One that pushes, looks and deletes until it is told to stop."""

    person: Person
    number: int
    stop: threading.Event
    others: tuple[str, ...] = ()
    """The repositories that it mounts from."""
    images: dict[str, Image] = field(default_factory=dict)
    """What was promised and not deleted, by digest."""
    done: int = 0
    lost: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """A thread that has not begun."""
        super().__init__()
        self.random = random.Random(self.number)  # noqa: S311 - no secret
        self.repo = self.person.new_repo()
        self.signed_in = -float(SIGN_IN)

    def __hash__(self) -> int:
        """As threads are told from each other."""
        return self.number

    def run(self) -> None:
        """One step after another."""
        while not self.stop.is_set():
            if time.monotonic() - self.signed_in > SIGN_IN:
                self.signed_in = time.monotonic()
                self.repo = self.person.at(self.repo.name, "pull,push,delete", *self.others)
            step = self.random.choices([self.push, self.look, self.delete, self.abandon], [4, 4, 2, 1])[0]
            try:
                step()
            except Exception as error:  # noqa: BLE001 - whatever it was, it is a finding
                self.lost.append(f"{step.__name__}: {error!r}")
            self.done += 1

    def push(self) -> None:
        """Push an image of a new config and two common layers, mounted where that works, to one of few tags."""
        layers = [f"layer {self.random.randrange(CONTENTS)}".encode() * 400 for _ in range(2)]
        config = f'{{"of": "{self.number} {self.done}"}}'.encode()
        made = image_of(config, layers)
        for blob in made.blobs:
            if not self.have(blob):
                self.repo.push_blob(blob)
        answer = self.repo.put(f"t{self.random.randrange(5)}", made.manifest)
        if answer.status != 201:
            self.lost.append(f"PUT of a manifest whose blobs were promised: {answer.status} {answer.body!r}")
        else:
            self.images[made.digest] = made

    def have(self, blob: bytes) -> bool:
        """Whether a HEAD or a mount gives the blob."""
        way = self.random.randrange(3)
        if way == 0:
            return self.repo.send("HEAD", self.repo.path(f"blobs/{sha256(blob)}")).status == 200
        if way == 1:
            path = self.repo.path(f"blobs/uploads/?mount={sha256(blob)}")
            return self.repo.send("POST", path, b"").status == 201
        return False

    def look(self) -> None:
        """Pull one of the images whole, by its digest."""
        if self.images:
            self.verify(self.random.choice(list(self.images.values())))

    def verify(self, made: Image) -> None:
        """Record what is missing, or not as it was pushed."""
        if (answer := self.repo.manifest(made.digest)).body != made.manifest:
            self.lost.append(f"manifest {made.digest}: {answer.status}")
        for blob in made.blobs:
            if (answer := self.repo.blob(sha256(blob))).body != blob:
                self.lost.append(f"blob {sha256(blob)}: {answer.status}")

    def delete(self) -> None:
        """Delete an image, or a tag."""
        if self.images:
            digest = self.random.choice(list(self.images))
            del self.images[digest]
            if (answer := self.repo.delete(f"manifests/{digest}")).status != 202:
                self.lost.append(f"DELETE: {answer.status} {answer.body!r}")

    def abandon(self) -> None:
        """Push a blob that no manifest will name."""
        self.repo.push_blob(f"left over {self.number} {self.done}".encode())


def image_of(config: bytes, layers: list[bytes]) -> Image:
    """An image of these blobs."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(config, CONFIG),
        "layers": [descriptor(layer) for layer in layers],
    }
    return Image(dumps(document), OCI_MANIFEST, (config, *layers))


def soak(server: Server, minutes: float) -> list[str]:
    """Run the clients for some time, and collect their garbage; what was lost, and what garbage is left."""
    stop = threading.Event()
    clients = [Client(admin(server), number, stop) for number in range(CLIENTS)]
    for client in clients:
        client.others = tuple(each.repo.name for each in clients if each is not client)
        client.start()
    stop.wait(minutes * 60)
    stop.set()
    for client in clients:
        client.join()
    live = [made for client in clients for made in client.images.values()]
    needed = {sha256(blob) for made in live for blob in made.blobs}
    before = len(server.stored())
    server.stop()
    for _ in range(RUNS):
        polly_server("gc", "--data", str(server.data))
        if not (over := server.stored() - needed):
            break
        time.sleep(LEASE)
    server.start()
    for client in clients:
        for made in client.images.values():
            client.verify(made)
    lost = [f"client {client.number}: {each}" for client in clients for each in client.lost]
    steps = sum(client.done for client in clients)
    print(f"{steps} steps by {CLIENTS} clients; {len(live)} images live, of {len(needed)} blobs; {len(lost)} lost")
    print(f"{before} blobs were stored at the end, {len(over)} that nothing needs are left")
    return lost + [f"nothing needs {digest}, and it is there" for digest in sorted(over)]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0)
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory() as folder, running_server(Path(folder), *OPTIONS) as server:
        lost = soak(server, minutes)
    for each in lost[:50]:
        print(each, file=sys.stderr)
    raise SystemExit(1 if lost else 0)


if __name__ == "__main__":
    main()
