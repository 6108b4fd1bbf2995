"""From a zstd:chunked layer, podman pulls only the files that it lacks, with several ranges in one request."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.server import running_server
from support.wire_client import admin

if TYPE_CHECKING:
    from support.server import Server

FILES = 60
SIZE = 100_000
CHANGED = (3, 20, 40)


class Podman:
    """podman as root, with a storage of its own that takes layers in parts."""

    def __init__(self, folder: Path) -> None:
        settings = folder / "storage.conf"
        settings.write_text(
            f'[storage]\ndriver = "overlay"\nrunroot = "{folder}/run"\ngraphroot = "{folder}/graph"\n'
            '[storage.options]\npull_options = {enable_partial_images = "true"}\n'
        )
        own = {"CONTAINERS_STORAGE_CONF": str(settings), "REGISTRY_AUTH_FILE": str(folder / "auth.json")}
        self._environment = {**os.environ, **own, "HOME": str(folder)}

    def ok(self, *arguments: str, stdin: str = "") -> str:
        """A command that has to work; what it printed."""
        done = subprocess.run(
            ["podman", *arguments], env=self._environment, input=stdin, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def files(self, reference: str) -> dict[str, bytes]:
        """What a pulled image holds."""
        place = Path(self.ok("image", "mount", reference).strip())
        found = {file.name: file.read_bytes() for file in place.glob("f*")}
        self.ok("image", "unmount", reference)
        return found


def pulls(server: Server, digest: str) -> list[tuple[int, int]]:
    """Statuses and sizes of the answers to GET of a blob, from the server's log."""
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    return [
        (line["status"], line["sent"])
        for line in lines
        if line.get("method") == "GET" and line["path"].endswith(f"/blobs/{digest}")
    ]


@pytest.mark.parametrize("tls", [False, True])
def test_what_is_there_is_not_pulled_again(tmp_path: Path, tls: bool) -> None:  # noqa: FBT001 - the two connections
    """23: of the second image only the three files that differ are pulled, over plain HTTP and over TLS."""
    pair = ("-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    subprocess.run(["openssl", "req", "-x509", *curve, *pair], cwd=tmp_path, check=True, capture_output=True)
    podman, context = Podman(tmp_path), tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nCOPY f* /\n")
    for number in range(FILES):
        (context / f"f{number}").write_bytes(secrets.token_bytes(SIZE))
    with running_server(tmp_path, "--collect-seconds", "0", "--workers", "1") as server:
        ann = admin(server)
        repo = ann.new_repo()
        references = [f"{server.registry}/{repo.name}:v{number}" for number in (1, 2)]
        login = ("login", "--tls-verify=false", "--username", ann.email, "--password-stdin", server.registry)
        podman.ok(*login, stdin=ann.password)
        for reference in references:
            podman.ok("build", "--tag", "localhost/made", str(context))
            chunked = ("--compression-format", "zstd:chunked")
            podman.ok("push", "--tls-verify=false", *chunked, "localhost/made", f"docker://{reference}")
            if reference == references[0]:
                for number in CHANGED:
                    (context / f"f{number}").write_bytes(secrets.token_bytes(SIZE))
        (layer,) = repo.manifest("v2").json()["layers"]
        podman.ok("rmi", "--all", "--force")
        if tls:
            server.stop()
            server.options += ("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
            server.start()
        for reference in references:
            podman.ok("pull", "--tls-verify=false", reference)
        wanted = {file.name: file.read_bytes() for file in context.glob("f*")}
        assert podman.files(references[1]) == wanted
        server.stop()  # it writes the lines of requests after their responses
        answers = pulls(server, layer["digest"])
        assert {status for status, _ in answers} == {206}
        assert len(CHANGED) * SIZE < sum(sent for _, sent in answers) < (len(CHANGED) + 2) * SIZE < layer["size"]
