"""Parsing manifests: from bytes to what the registry has to know. Nothing here touches a store.

Essential reading: image-spec 1.1, manifest.md and image-index.md; Docker's "Image Manifest V2, Schema 2"; and
CVE-2021-41190 for why a document that could be read as two things is refused.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from polly_dockers.errors import DigestInvalid, ManifestInvalid
from polly_dockers.model import Descriptor, Digest
from polly_dockers.oci import fields

if TYPE_CHECKING:
    from collections.abc import Callable

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"

IMAGES: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEXES: Final = frozenset({OCI_INDEX, DOCKER_LIST})
CONFIGS: Final = frozenset(
    {"application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"}
)
"""Media types of configs that contain the platform of an image."""

MAX_ITEMS: Final = 10_000
"""Layers of an image, entries of an index, or annotations of a manifest, at most."""

MAX_CONFIG: Final = 4 << 20
"""Bytes of a config blob that is read for its platform, at most."""

_OTHERS: Final = {True: ("manifests", "fsLayers", "history"), False: ("layers", "config", "fsLayers", "history")}
"""Fields that an image (True) or an index (False) must not have."""

_WORD: Final = re.compile(r"[A-Za-z0-9._-]{1,50}\Z")


@dataclass(frozen=True, slots=True)
class Manifest:
    """The parts of a manifest that the registry needs."""

    media_type: str
    config: Descriptor | None
    layers: tuple[Descriptor, ...]
    foreign: frozenset[Digest]
    """Layers that must not be distributed, so they may be missing in the repository."""
    children: tuple[Descriptor, ...]
    """The entries of an index: manifests, and blobs in the index of a build cache."""
    subject: Digest | None
    artifact_type: str | None
    annotations: dict[str, str]
    size: int

    @property
    def index(self) -> bool:
        """Whether it is an index (or a Docker manifest list)."""
        return self.media_type in INDEXES


def parse(body: bytes, content_type: str, *, stored: bool = False) -> Manifest:
    """The manifest in ``body``, of the type in the request's Content-Type. Raises ManifestInvalid.

    If ``content_type`` is empty, the ``mediaType`` of the document counts. ``stored`` is for a manifest that was
    accepted earlier, perhaps by a version with fewer checks: only what the registry needs is checked.
    """
    document = _document(body, dict if stored else _once)
    if not stored:
        fields.check(document)
    media_type = _media_type(document, content_type.partition(";")[0].strip())
    if document.get("schemaVersion") != 2 or isinstance(document["schemaVersion"], bool):  # noqa: PLR2004
        msg = "schemaVersion must be 2. Push an image of schema 1 again with a current Docker."
        raise ManifestInvalid(msg)
    for key in _OTHERS[media_type in IMAGES]:
        if key in document and not stored:
            msg = f"A manifest of type {media_type} must not have {key!r}, or it reads as two types (CVE-2021-41190)."
            raise ManifestInvalid(msg)
    subject = _descriptor(document["subject"], "subject") if document.get("subject") is not None else None
    annotations = fields.text_map(document.get("annotations"), "annotations")
    if len(annotations) > MAX_ITEMS:
        msg = f"annotations has {len(annotations)} entries; at most {MAX_ITEMS} are allowed."
        raise ManifestInvalid(msg)
    artifact_type = document.get("artifactType")
    if artifact_type is not None and not _is_type(artifact_type):
        msg = "artifactType must be text."
        raise ManifestInvalid(msg)
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    children: tuple[Descriptor, ...] = ()
    if media_type in IMAGES:
        config = _descriptor(document.get("config"), "config")
        layers = _descriptors(document, "layers")
        artifact_type = artifact_type or config.media_type
    else:
        children = _descriptors(document, "manifests")
    return Manifest(
        media_type=media_type,
        config=config,
        layers=layers,
        foreign=frozenset(item.digest for item in layers if not _distributable(item.media_type)),
        children=children,
        subject=subject.digest if subject else None,
        artifact_type=artifact_type or None,
        annotations=annotations,
        size=len(body),
    )


def _document(body: bytes, made: Callable[[list[tuple[str, Any]]], dict[str, Any]]) -> dict[str, Any]:
    """The JSON object in the body, each object in it created by ``made``. Raises ManifestInvalid."""
    try:
        document = json.loads(body.decode("utf-8"), object_pairs_hook=made, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        msg = f"The manifest is not valid JSON in UTF-8: {reason[:200]}."
        raise ManifestInvalid(msg) from error
    if not isinstance(document, dict):
        msg = "The manifest is not a JSON object."
        raise ManifestInvalid(msg)
    return document


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object without duplicate keys, which two readers could read differently."""
    found = dict(pairs)
    if len(found) != len(pairs):
        msg = "an object has the same key twice"
        raise ValueError(msg)
    names = "".join(found)
    if not names.isascii():
        names.encode()  # raises for half a surrogate pair, which readers replace differently
    return found


def _no_constant(text: str) -> None:
    msg = f"{text} is not valid JSON"
    raise ValueError(msg)


def _media_type(document: dict[str, Any], content_type: str) -> str:
    stated = document.get("mediaType")
    if stated is not None and not isinstance(stated, str):
        msg = "mediaType must be text."
        raise ManifestInvalid(msg)
    media_type = content_type or stated or ""
    if stated and stated != media_type:
        msg = f"The Content-Type is {media_type[:200]!r}, but the manifest's mediaType is {stated[:200]!r}."
        raise ManifestInvalid(msg)
    if media_type not in IMAGES | INDEXES:
        msg = (
            f"{media_type[:200]!r} is not a type of manifest that this registry accepts. It accepts {OCI_MANIFEST}, "
            f"{OCI_INDEX}, {DOCKER_MANIFEST} and {DOCKER_LIST}."
        )
        raise ManifestInvalid(msg)
    return media_type


def _descriptors(document: dict[str, Any], key: str) -> tuple[Descriptor, ...]:
    """The descriptors in the list of that key. null, which Go writes for an empty list, is an empty list."""
    items = document.get(key, 0)
    if items is None:
        return ()
    if not isinstance(items, list):
        msg = f"{key!r} is missing or is not a list."
        raise ManifestInvalid(msg)
    if len(items) > MAX_ITEMS:
        msg = f"{key!r} has {len(items)} entries; at most {MAX_ITEMS} are allowed."
        raise ManifestInvalid(msg)
    return tuple(_descriptor(item, f"{key}[{at}]") for at, item in enumerate(items))


def _descriptor(item: object, where: str) -> Descriptor:
    if not isinstance(item, dict):
        msg = f"{where!r} is missing or is not a descriptor."
        raise ManifestInvalid(msg)
    media_type, size, digest = item.get("mediaType"), item.get("size"), item.get("digest")
    if not media_type or not _is_type(media_type):
        msg = f"{where} has no valid mediaType."
        raise ManifestInvalid(msg)
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 62:
        msg = f"{where} has no valid size in bytes."
        raise ManifestInvalid(msg)
    try:
        parsed = Digest.parse(digest if isinstance(digest, str) else "")
    except DigestInvalid as error:
        msg = f"{where} has no valid digest of sha256 or sha512."
        raise ManifestInvalid(msg) from error
    return Descriptor(parsed, size, media_type, _platform(item.get("platform")))


def _is_type(value: object) -> bool:
    """Whether it is text that can be stored: JSON can also contain half a surrogate pair."""
    return isinstance(value, str) and (value.isascii() or value.encode("utf-8", "replace").decode() == value)


def _platform(item: object) -> str | None:
    """``os/architecture[/variant]``; None if it is unknown, as for BuildKit's attestations."""
    if not isinstance(item, dict):
        return None
    parts = [item.get("os"), item.get("architecture"), item.get("variant")]
    texts = [part for part in parts if isinstance(part, str) and _WORD.match(part)]
    if len(texts) < 2 or "unknown" in texts[:2]:  # noqa: PLR2004 - os and architecture
        return None
    return "/".join(texts)


def platform_of_config(body: bytes) -> str | None:
    """The platform in an image's config; None if it has none."""
    try:
        return _platform(json.loads(body))
    except (ValueError, RecursionError):
        return None


def _distributable(media_type: str) -> bool:
    """Whether the repository must have the layer; clients fetch others elsewhere (image-spec, layer.md)."""
    return ".nondistributable." not in media_type and ".foreign." not in media_type
