"""The grammar of references: names of repositories, tags, digests, ``NAME:TAG`` and ``NAME@DIGEST``.

The server and the commands both use it, so it imports nothing but ``re``: a command has to start fast.

Essential reading: distribution-spec 1.1.1, "Pulling manifests" (names and tags); image-spec 1.1, descriptor.md,
"Digests".
"""

from __future__ import annotations

import re

MAX_NAME = 255
"""Characters of ``HOST/NAME``, at most: "Many clients impose a limit of 255 characters"."""
MAX_SLUG = 63
"""Characters of an organisation's slug, at most."""

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_SLUG = re.compile(rf"{_COMPONENT}\Z")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}\Z")
_DIGEST = re.compile(r"(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\Z")
_PREFIX = re.compile(r"(?:(?:sha256:)?[0-9a-f]{6,64}|(?:sha512:)?[0-9a-f]{6,128})\Z")


def is_name(text: str) -> bool:
    """Whether ``text`` is one component or several with slashes between them, of any length."""
    return _NAME.match(text) is not None


def is_slug(text: str) -> bool:
    """Whether ``text`` may be the name of an organisation: one component of at most MAX_SLUG characters."""
    return len(text) <= MAX_SLUG and _SLUG.match(text) is not None


def is_tag(text: str) -> bool:
    """Whether ``text`` is a tag: up to 128 letters, digits, ``_``, ``.`` and ``-``, not ``.`` or ``-`` first."""
    return _TAG.match(text) is not None


def is_digest(text: str) -> bool:
    """Whether ``text`` is a whole digest: ``sha256:`` and 64, or ``sha512:`` and 128, lower-case hexadecimal digits."""
    return _DIGEST.match(text) is not None


def is_digest_prefix(text: str) -> bool:
    """Whether ``text`` is a digest or its beginning: at least 6 hexadecimal digits, with or without the algorithm."""
    return _PREFIX.match(text) is not None


def suggest_name(text: str) -> str:
    """A valid name that is close to an invalid one; empty if there is none."""
    parts = (
        re.sub(r"[^a-z0-9]+", lambda run: run[0][0] if run[0][0] in "._-" else "-", part.lower()).strip("._-")
        for part in text.split("/")
    )
    name = "/".join(filter(None, parts))
    return name if is_name(name) else ""


def split(text: str) -> tuple[str, str, str]:
    """The name, tag and digest of an image such as ``HOST:PORT/NAME:TAG@DIGEST``; tag and digest may be empty.

    The parts are not checked.
    """
    rest, _, digest = text.partition("@")
    head, slash, last = rest.rpartition("/")
    last, _, tag = last.partition(":")
    return f"{head}{slash}{last}", tag, digest
