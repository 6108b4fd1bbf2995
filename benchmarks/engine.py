"""Rows of the real Docker Engine: it pushes and pulls an image of ten layers."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
import time
from typing import TYPE_CHECKING, Final

from benchmarks.figures import Figure, Result, Sample, cost
from benchmarks.processes import Meter
from benchmarks.registries import EMAIL, ORG, Polly, Registry, folder_for, running_polly, running_registry
from e2e.engine import Engine, running_engine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.scale import Scale

PUSH: Final = "docker push"
PULL: Final = "docker pull"
ROWS: Final = (PUSH, PULL)
LAYERS: Final = 10


def measure(scale: Scale, folder: Path, wanted: frozenset[str]) -> Iterator[Result]:
    """Measure both rows; the engine runs on the same machine and disk."""
    taken: dict[str, tuple[list[Sample], list[Sample]]] = {PUSH: ([], []), PULL: ([], [])}
    with running_polly(folder) as polly, running_registry(folder) as registry, running_engine() as engine:
        polly.create("app")
        _sign_in(engine, folder, polly)
        for pair in range(scale.pairs):
            _load(engine, folder, scale.engine_layer, f"bench:{pair}")
            for at, server in enumerate((polly, registry)):
                name = f"127.0.0.1:{server.port}/{f'{ORG}/' if server is polly else ''}app:{pair}"
                _docker(engine, folder, "tag", f"bench:{pair}", name)
                taken[PUSH][at].append(_timed(engine, folder, server, "push", name))
            _docker(engine, folder, "image", "prune", "--all", "--force")
            for at, server in enumerate((polly, registry)):
                name = f"127.0.0.1:{server.port}/{f'{ORG}/' if server is polly else ''}app:{pair}"
                _docker(engine, folder, "image", "prune", "--all", "--force")
                taken[PULL][at].append(_timed(engine, folder, server, "pull", name))
                _docker(engine, folder, "image", "rm", name)
    for row in ROWS:
        if row in wanted:
            mine, its = taken[row]
            seconds = ([sample.seconds for sample in mine], [sample.seconds for sample in its])
            figures = [Figure("seconds", "s", seconds[0], 1.0, at_least=False, other=seconds[1])]
            size = scale.engine_layer / 1e6
            remark = f"{LAYERS} layers of {size:.0f} MB of random bytes, which Docker itself packs and unpacks."
            yield Result(row, figures, [cost("Polly", mine, "image"), cost("docker-registry", its, "image")], [remark])


def _docker(engine: Engine, folder: Path, *arguments: str, stdin: bytes = b"") -> str:
    env = {**os.environ, "DOCKER_HOST": engine.docker_host, "DOCKER_CONFIG": str(folder / "docker")}
    done = subprocess.run(["docker", *arguments], input=stdin, env=env, capture_output=True, check=False)
    if done.returncode:
        msg = f"docker {' '.join(arguments)}: {done.stderr.decode()}"
        raise RuntimeError(msg)
    return done.stdout.decode()


def _sign_in(engine: Engine, folder: Path, polly: Polly) -> None:
    arguments = ("login", f"127.0.0.1:{polly.port}", "--username", EMAIL, "--password-stdin")
    _docker(engine, folder, *arguments, stdin=polly.registry_token.encode())


def _timed(engine: Engine, folder: Path, server: Registry, *arguments: str) -> Sample:
    os.sync()
    with Meter(server.process.pid) as meter:
        start = time.perf_counter()
        _docker(engine, folder, *arguments)
        seconds = time.perf_counter() - start
    return Sample(1, seconds, meter.cpu, meter.memory)


def _load(engine: Engine, folder: Path, size: int, name: str) -> None:
    """Give the engine an image of ten new layers, each of one file of random bytes."""
    with folder_for("image", folder) as place:
        archive = place / "image.tar"
        with tarfile.open(archive, "w") as outer:
            ids, paths = [], []
            for number in range(LAYERS):
                content = io.BytesIO()
                with tarfile.open(fileobj=content, mode="w") as inner:
                    _put(inner, f"layer{number}", os.urandom(size))
                ids.append(f"sha256:{hashlib.sha256(content.getbuffer()).hexdigest()}")
                paths.append(f"{number}/layer.tar")
                _put(outer, paths[-1], content.getvalue())
            config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ids}}
            _put(outer, "config.json", json.dumps(config).encode())
            manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": paths}]
            _put(outer, "manifest.json", json.dumps(manifest).encode())
        _docker(engine, folder, "load", "--input", str(archive))


def _put(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
