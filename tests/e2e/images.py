"""Small images: built by an engine, or written as an OCI layout; and a look into them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import secrets
import tarfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .people import Person

FILE = "etc/content"
"""The path in an image of the content that makes it different from others."""

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
EMPTY = "application/vnd.oci.empty.v1+json"


def new_content(size: int = 100_000) -> bytes:
    """Bytes that no other image has."""
    return secrets.token_bytes(size)


def digest_of(content: bytes) -> str:
    """``sha256:…``."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def encoded(document: Mapping[str, Any]) -> bytes:
    """A document as its bytes."""
    return json.dumps(document).encode()


def context(person: Person, content: bytes) -> Path:
    """A folder to build an image from, with a Dockerfile in it."""
    folder = person.home / f"context-{secrets.token_hex(4)}"
    (folder / FILE).parent.mkdir(parents=True)
    (folder / FILE).write_bytes(content)
    (folder / "Dockerfile").write_text(f'FROM scratch\nCOPY {FILE} /{FILE}\nLABEL org="acme"\nCMD ["/none"]\n')
    return folder


def build(person: Person, content: bytes, reference: str) -> str:
    """Build an image with Docker's classic builder and give it a name; its id."""
    folder = context(person, content)
    return person.ok("docker", "build", "--quiet", "--tag", reference, str(folder)).strip()


def content_of(person: Person, image: str) -> bytes:
    """What an image of the person's engine holds."""
    container = person.ok("docker", "create", image).strip()
    place = person.home / f"copy-{secrets.token_hex(4)}"
    person.ok("docker", "cp", f"{container}:/{FILE}", str(place))
    person.ok("docker", "rm", container)
    return place.read_bytes()


def image_id(person: Person, image: str) -> str:
    """The digest of an image's configuration, which names the digests of its layers."""
    return person.ok("docker", "image", "inspect", "--format", "{{.Id}}", image).strip()


def unpacked(layer: bytes) -> bytes:
    """The content of an image of these tests, from its one layer."""
    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        file = archive.extractfile(FILE)
        assert file is not None
        return file.read()


class Layout:
    """An OCI image layout in a folder (image-spec, "OCI Image Layout")."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "blobs/sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def blob(self, content: bytes, media_type: str, **more: object) -> dict[str, Any]:
        """Put a blob in; its descriptor."""
        digest = digest_of(content)
        (self.folder / "blobs/sha256" / digest.removeprefix("sha256:")).write_bytes(content)
        return {"mediaType": media_type, "digest": digest, "size": len(content), **more}

    def image(self, content: bytes, platform: str = "linux/amd64") -> dict[str, Any]:
        """Put an image of one layer in; its descriptor."""
        system, architecture = platform.split("/")
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            info = tarfile.TarInfo(FILE)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        layer = self.blob(gzip.compress(archive.getvalue(), mtime=0), LAYER)
        rootfs = {"type": "layers", "diff_ids": [digest_of(archive.getvalue())]}
        config = {"os": system, "architecture": architecture, "config": {"Cmd": ["/none"]}, "rootfs": rootfs}
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.blob(encoded(config), CONFIG),
            "layers": [layer],
        }
        return self.blob(encoded(manifest), MANIFEST, platform={"os": system, "architecture": architecture})

    def index(self, children: list[dict[str, Any]]) -> dict[str, Any]:
        """Put an index of images in; its descriptor."""
        return self.blob(encoded({"schemaVersion": 2, "mediaType": INDEX, "manifests": children}), INDEX)

    def publish(self, descriptor: dict[str, Any], name: str = "image") -> str:
        """Give an image of the layout a name, and remove its previous name; its digest."""
        annotations = {"org.opencontainers.image.ref.name": name, "io.containerd.image.name": name}
        entry = descriptor | {"annotations": annotations}
        (self.folder / "index.json").write_bytes(encoded({"schemaVersion": 2, "manifests": [entry]}))
        return str(descriptor["digest"])
