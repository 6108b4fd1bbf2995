"""How much of everything a run measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MIB: Final = 1 << 20
GIB: Final = 1 << 30


@dataclass(frozen=True)
class Scale:
    """Sizes and repetitions: the defaults are those of a full run."""

    name: str = "full"
    pairs: int = 5
    """Alternations of Polly and the peer."""
    seconds: int = 4
    """How long wrk runs for a sample."""
    layer: int = GIB
    streams: int = 8
    images: int = 400
    """Small images of a sample."""
    engine_layer: int = GIB // 10
    """Bytes of each of the ten layers that Docker pushes and pulls."""
    tags: int = 100_000
    commits: int = 1_000_000
    repositories: int = 10_000
    requests: int = 200
    """Requests of a sample whose latency counts."""
    readers: int = 200
    reading: int = 20
    """Seconds that the slow readers read."""
    push: int = 10 * GIB
    """Bytes of the one large push."""
    peer: tuple[str, int] | None = None
    """Name and port of a registry that runs on this machine without sign-in, in place of docker-registry."""


FULL: Final = Scale()
QUICK: Final = Scale(
    name="quick",
    pairs=2,
    seconds=1,
    layer=256 * MIB,
    images=96,
    engine_layer=1 * MIB,
    tags=2_000,
    commits=50_000,
    repositories=1_000,
    requests=50,
    reading=3,
    push=1 * GIB,
)
