"""The fields of a manifest that clients read: how their keys are matched, and the types of their values.

Most clients read a manifest with Go's encoding/json. It matches a key exactly, or else by Unicode's simple folding
(``foldName`` in its fold.go), and rejects the whole document if a value does not have the type of its field. This
module refuses what such a client could not read, or would read differently from a reader that compares keys exactly.

Essential reading: encoding/json, decode.go (``object``, ``literalStore``), and image-spec, specs-go/v1.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, Final

from polly_dockers.errors import ManifestInvalid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Check = Callable[[object, str], None]

_INT64: Final = range(-(1 << 63), 1 << 63)


def check(document: dict[str, Any]) -> None:
    """Raise ManifestInvalid, with the path of the field, if a client in Go would read something else or fail."""
    _fields(document, "", _DOCUMENT, _DOCUMENT_NAMES)


def text_map(value: object, where: str) -> dict[str, str]:
    """Annotations as Go reads them: null has no entries, and a null value is an empty text. Raises ManifestInvalid."""
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(item is None or isinstance(item, str) for item in value.values()):
        raise _wrong(where, "an object whose values are texts")
    return {key: item or "" for key, item in value.items()}


def _wrong(where: str, right: str) -> ManifestInvalid:
    return ManifestInvalid(f"{where[:200]} must be {right}; else clients cannot read the manifest.")


def _fields(part: dict[str, Any], where: str, known: Mapping[str, Check], names: Mapping[str, str]) -> None:
    for key, value in part.items():
        # Full folding includes what simple folding does: U+017F to "s", and the Kelvin sign to "k".
        name = names.get(key.casefold())
        if name is None:
            continue
        if name != key:
            msg = f"The key {where}{key[:50]!r} must be written {name!r}: some clients read both as the same."
            raise ManifestInvalid(msg)
        if value is not None and key in known:  # Go ignores a null value
            known[key](value, where + key)


def _text(value: object, where: str) -> None:
    if not isinstance(value, str):
        raise _wrong(where, "text")


def _texts(value: object, where: str) -> None:
    if not isinstance(value, list) or not all(item is None or isinstance(item, str) for item in value):
        raise _wrong(where, "a list of texts")


def _whole(value: object, where: str) -> None:
    """Check for an int64. Go accepts neither 1.0 nor 1e3."""
    if not isinstance(value, int) or isinstance(value, bool) or value not in _INT64:
        raise _wrong(where, "a whole number of 64 bits, in digits alone")


def _base64(value: object, where: str) -> None:
    """Check for standard base64 with padding. Go ignores line breaks."""
    try:
        if not isinstance(value, str):
            raise _wrong(where, "text in base64")
        base64.b64decode(value.replace("\r", "").replace("\n", ""), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _wrong(where, "text in base64") from error


def _text_map(value: object, where: str) -> None:
    text_map(value, where)


def _platform(value: object, where: str) -> None:
    if not isinstance(value, dict):
        raise _wrong(where, "an object")
    _fields(value, f"{where}.", _PLATFORM, _PLATFORM_NAMES)


def _descriptor(value: object, where: str) -> None:
    if not isinstance(value, dict):
        raise _wrong(where, "a descriptor")
    _fields(value, f"{where}.", _DESCRIPTOR, _DESCRIPTOR_NAMES)


def _descriptors(value: object, where: str) -> None:
    if not isinstance(value, list):
        raise _wrong(where, "a list of descriptors")
    for at, item in enumerate(value):
        _descriptor(item, f"{where}[{at}]")


def _names(*names: Iterable[str]) -> dict[str, str]:
    return {name.casefold(): name for several in names for name in several}


_PLATFORM: Final[Mapping[str, Check]] = {
    "architecture": _text,
    "os": _text,
    "os.version": _text,
    "os.features": _texts,
    "variant": _text,
    "features": _texts,
}
_DESCRIPTOR: Final[Mapping[str, Check]] = {
    "mediaType": _text,
    "digest": _text,
    "size": _whole,
    "urls": _texts,
    "annotations": _text_map,
    "data": _base64,
    "platform": _platform,
    "artifactType": _text,
}
_DOCUMENT: Final[Mapping[str, Check]] = {
    "schemaVersion": _whole,
    "mediaType": _text,
    "artifactType": _text,
    "config": _descriptor,
    "layers": _descriptors,
    "manifests": _descriptors,
    "subject": _descriptor,
    "annotations": _text_map,
}

_PLATFORM_NAMES: Final = _names(_PLATFORM)
_DESCRIPTOR_NAMES: Final = _names(_DESCRIPTOR, _DOCUMENT)
_DOCUMENT_NAMES: Final = _names(_DESCRIPTOR, _DOCUMENT, ("fsLayers", "history", "signatures"))
