"""The domain types: parsed once where they come in, frozen, and trusted from there on.

The grammar of names, tags and digests is in ``oci.reference``.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from polly_dockers.errors import BadRequest, DigestInvalid, NameInvalid, TagInvalid
from polly_dockers.oci import reference

if TYPE_CHECKING:
    from collections.abc import Iterable

_EMAIL = re.compile(r"[a-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[a-z0-9](?:[a-z0-9.-]{0,187}[a-z0-9])?\Z")


class Digest(str):
    """``algorithm:hex``, with sha256 or sha512. It names content, and so a commit."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """The digest in ``text``. Raises DigestInvalid."""
        if not reference.is_digest(text):
            msg = "This is not a valid digest: write sha256: and 64, or sha512: and 128, lower-case hexadecimal digits."
            raise DigestInvalid(msg, detail={"digest": text[:200]})
        return cls(text)

    @property
    def algorithm(self) -> str:
        """``sha256`` or ``sha512``."""
        return self[:6]

    @property
    def hex(self) -> str:
        """The hexadecimal digits."""
        return self[7:]

    @classmethod
    def of(cls, algorithm: str, body: bytes) -> Self:
        """The digest of some bytes; ``algorithm`` is ``sha256`` or ``sha512``."""
        return cls(f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}")


class DigestPrefix(str):
    """The beginning of a digest, as people type it: at least 6 hexadecimal digits, with or without ``sha256:``."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self | Digest:
        """The Digest in ``text`` if it is whole, else the prefix. Raises DigestInvalid."""
        if reference.is_digest(text):
            return Digest(text)
        if not reference.is_digest_prefix(text):
            msg = (
                f"{text[:150]!r} is not a digest or the beginning of one: give at least 6 hexadecimal digits in lower "
                "case, such as sha256:4bd093 or 4bd093."
            )
            raise DigestInvalid(msg, detail={"digest": text[:200]})
        return cls(text)

    @property
    def ranges(self) -> list[tuple[str, str]]:
        """Ranges of the digests that begin so: from the first text on, and below the second."""
        algorithm, _, digits = self.rpartition(":")
        return [(f"{each}:{digits}", f"{each}:{digits}g") for each in ("sha256", "sha512") if algorithm in {"", each}]


class Tag(str):
    """A tag: up to 128 letters, digits, ``_``, ``.`` and ``-``, not ``.`` or ``-`` first."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """The tag in ``text``. Raises TagInvalid."""
        if not reference.is_tag(text):
            alone = text.rpartition(":")[2]
            hint = f" Give only the tag: {alone}." if alone != text and reference.is_tag(alone) else ""
            msg = (
                f"{text[:150]!r} is not a valid tag: use up to 128 letters, digits, '_', '.' and '-', not '.' or '-' "
                f"first.{hint}"
            )
            raise TagInvalid(msg, detail={"tag": text[:200]})
        return cls(text)


class RepositoryName(str):
    """``<organisation>/<name>``; ``<name>`` may have more slashes."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """The repository name in ``text``. Raises NameInvalid."""
        if len(text) > reference.MAX_NAME or not reference.is_name(text) or "/" not in text:
            raise NameInvalid(name_advice(text), detail={"name": text[:300]})
        return cls(text)

    @classmethod
    def of(cls, organisation: str, name: str) -> Self:
        """The repository ``name`` of ``organisation``. Raises NameInvalid."""
        if not reference.is_name(name):
            raise NameInvalid(name_advice(name), detail={"name": name[:300]})
        return cls.parse(f"{organisation}/{name}")

    @property
    def organisation(self) -> str:
        """The slug of the organisation."""
        return self.partition("/")[0]

    @property
    def name(self) -> str:
        """The name without the organisation."""
        return self.partition("/")[2]


def check_length(host: str, name: RepositoryName) -> None:
    """Raise NameInvalid if ``host/name`` is longer than clients accept."""
    if len(host) + 1 + len(name) > reference.MAX_NAME:
        msg = f"{host}/{name} has more than {reference.MAX_NAME} characters, the most that Docker accepts."
        raise NameInvalid(msg)


def name_advice(text: str) -> str:
    """What is wrong with a name, and a similar name that would be right, if there is one."""
    if len(text) > reference.MAX_NAME:
        return f"The name has {len(text)} characters; with HOST/ before it, it may have {reference.MAX_NAME}."
    near = reference.suggest_name(text)
    hint = f" {near!r} would be right." if near and near != text else ""
    return (
        f"{text[:100]!r} is not a valid name of a docker repository: it is <organisation>/<name>, each part of "
        f"lower-case letters and digits, with '.', '_' or '-' between them.{hint}"
    )


def parse_slug(text: str) -> str:
    """The slug of an organisation. Raises NameInvalid."""
    if not reference.is_slug(text):
        msg = (
            f"{text[:100]!r} is not a valid name of an organisation: use up to {reference.MAX_SLUG} lower-case letters "
            "and digits, with '.', '_' or '-' between them, such as 'acme'."
        )
        raise NameInvalid(msg)
    return text


def parse_email(text: str) -> str:
    """An email address, in lower case. It only names a user; no mail is sent to it. Raises BadRequest."""
    email = text.strip().lower()
    if not _EMAIL.match(email) or ".." in email:
        msg = f"{text[:100]!r} is not a valid email address, such as ann@acme.example."
        raise BadRequest(msg)
    return email


class Role(enum.IntEnum):
    """What a member may do. Each role includes the ones before it."""

    reader = 1
    writer = 2
    admin = 3

    @classmethod
    def parse(cls, text: str) -> Role:
        """The role of that name. Raises BadRequest."""
        try:
            return cls[text]
        except KeyError:
            msg = f"{text[:50]!r} is not a role: choose reader, writer or admin."
            raise BadRequest(msg) from None


class Action(enum.StrEnum):
    """What a request does to a repository, named as in the scope of a registry token."""

    pull = "pull"
    push = "push"
    delete = "delete"


ROLE_FOR: Final = {Action.pull: Role.reader, Action.push: Role.writer, Action.delete: Role.admin}
"""The lowest role that may do the action. Who may delete may also restore."""


BITS: Final = {Action.pull: 1, Action.push: 2, Action.delete: 4}
"""The actions as bits. A registry token has their sum for each repository."""
NAME_BYTES: Final = 12
"""Bytes of a name's SHA-256 that stand for it: nobody can find another name with the same 96 bits."""


def short_hash(name: RepositoryName) -> str:
    """16 characters that stand for the name of a repository."""
    return base64.urlsafe_b64encode(hashlib.sha256(name.encode()).digest()[:NAME_BYTES]).decode()


@dataclass(frozen=True, slots=True)
class Grants:
    """What a registry token allows: a sum of BITS for each repository, so that 100 of them fit in a header line.

    A repository is named by its id, which is never used twice. If it did not exist when the token was issued, it is
    named by a hash of its name, and the token is valid only if its own user creates that repository.
    """

    by_id: dict[int, int] = field(default_factory=dict)
    by_name: dict[str, int] = field(default_factory=dict)

    def allow(self, name: RepositoryName, repository_id: int | None, actions: Iterable[str]) -> None:
        """Allow actions in a repository, named by its id, or by its name if it does not exist yet."""
        bits = sum(BITS[Action(each)] for each in actions)
        if repository_id is not None:
            self.by_id[repository_id] = bits
        else:
            self.by_name[short_hash(name)] = bits

    def bits(self, name: RepositoryName, repository_id: int | None, *, mine: bool) -> int:
        """The allowed actions in a repository. ``mine``: the token's user created it, or it does not exist."""
        found = self.by_id.get(repository_id, 0) if repository_id is not None else 0
        if not found and mine and self.by_name:
            found = self.by_name.get(short_hash(name), 0)
        return found


@dataclass(frozen=True, slots=True)
class Actor:
    """The caller: a user with a credential, or somebody not signed in (``user_id`` None).

    It carries the limits of its credential. Rights are read from the database.
    """

    user_id: int | None = None
    access_token: str | None = None
    """The id of the access token that the caller signed in with; None for a password."""
    password_version: int | None = None
    grants: Grants | None = field(default_factory=Grants)
    """The limits of the registry token; None if the request has no registry token."""
    catalog: bool = False
    kid: str | None = None
    """The id of the signing key of the registry token; None if there is none."""
    address: str = ""
    """The client's address, for the audit log; empty for a request that only reads."""


ANYBODY: Final = Actor()


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Content that a manifest names (image-spec, descriptor.md)."""

    digest: Digest
    size: int
    media_type: str
    platform: str | None = None


@dataclass(frozen=True, slots=True)
class Commit:
    """One push of a tag."""

    id: int
    tag: str
    digest: Digest
    active: bool
    size: int
    platforms: tuple[str, ...]
    media_type: str
    pushed_at: int
    """Microseconds since 1970 UTC, as all times in the database."""
    pushed_by: str


@dataclass(frozen=True, slots=True)
class Repository:
    """A docker repository with its totals."""

    id: int
    name: RepositoryName
    description: str
    access: str
    sparse_indexes: str
    tags: int
    commits: int
    size: int
    created_by: str
    created_at: int
    pushed_at: int | None
