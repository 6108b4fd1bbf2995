"""Small images: three layers of 200 kB that no other image has, a config and a manifest."""

from __future__ import annotations

import hashlib
import json
import random
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks import crowd
from benchmarks.client import Unexpected, head, target

if TYPE_CHECKING:
    from benchmarks.registries import Registry

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
CONFIG: Final = "application/vnd.oci.image.config.v1+json"
LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
LAYERS: Final = 3
SIZE: Final = 200_000

_TAIL: Final = bytes(random.Random("polly").randbytes(SIZE - 32))  # noqa: S311 - it has to be the same everywhere
"""What all layers end with; their first 32 bytes differ."""


def digest_of(data: bytes) -> str:
    """``sha256:…``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(frozen=True)
class Image:
    """The parts of an image, ready to be sent: digest and bytes of each blob, and the manifest."""

    tag: str
    blobs: list[tuple[str, bytes]]
    manifest: bytes
    digest: str


def descriptor(media_type: str, digest: str, size: int) -> dict[str, object]:
    """A descriptor of the image specification."""
    return {"mediaType": media_type, "digest": digest, "size": size}


def manifest_of(config: tuple[str, int], layers: list[tuple[str, int]]) -> bytes:
    """A manifest of blobs that are known by digest and size."""
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, *config),
        "layers": [descriptor(LAYER, *layer) for layer in layers],
    }
    return json.dumps(document).encode()


def seeds(count: int) -> list[str]:
    """So many images that no registry has, by what makes them."""
    return [secrets.token_hex(16) for _ in range(count)]


def image_of(seed: str) -> Image:
    """The image that a seed makes, the same in every process; its tag is the seed."""
    layers = [hashlib.sha256(f"{seed}{number}".encode()).digest() + _TAIL for number in range(LAYERS)]
    rootfs = {"type": "layers", "diff_ids": [digest_of(data[:32]) for data in layers]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}).encode()
    blobs = [(digest_of(data), data) for data in (*layers, config)]
    sizes = [(digest, len(data)) for digest, data in blobs]
    manifest = manifest_of(sizes[-1], sizes[:-1])
    return Image(seed, blobs, manifest, digest_of(manifest))


def push(registry: Registry, repository: str, image: Image) -> None:
    """Push an image, untimed."""
    crowd.run(registry.port, 1, iter([send(registry.path(repository), registry.headers(repository), image)]))


def send(path: str, headers: dict[str, str], image: Image) -> crowd.Script:
    """Push an image as Docker does: POST, PATCH and PUT for each blob, then the manifest."""
    kind = headers | {"Content-Type": "application/octet-stream"}
    for digest, data in image.blobs:
        started = (yield [head("POST", f"{path}/blobs/uploads/", headers, 0)]).must(202)
        sent = (yield [head("PATCH", target(started.headers["location"]), kind, len(data)), data]).must(202)
        place = target(sent.headers["location"])
        (yield [head("PUT", f"{place}{'&' if '?' in place else '?'}digest={digest}", headers, 0)]).must(201)
    of_manifest = head(
        "PUT", f"{path}/manifests/{image.tag}", headers | {"Content-Type": MANIFEST}, len(image.manifest)
    )
    (yield [of_manifest, image.manifest]).must(201)


def fetch(path: str, headers: dict[str, str], image: Image) -> crowd.Script:
    """Pull an image as Docker does, and look at every byte; raises Unexpected."""
    accept = headers | {"Accept": MANIFEST}
    parts = [(f"{path}/manifests/{image.tag}", image.manifest)]
    parts += [(f"{path}/blobs/{digest}", data) for digest, data in image.blobs]
    for place, data in parts:
        if (yield [head("GET", place, accept, None)]).must(200).body != data:
            msg = f"other bytes came from {place}"
            raise Unexpected(msg)
