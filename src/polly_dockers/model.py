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
    """``algorithm:hex``: sha256 or sha512, lower-case, of the exact length. The name of content, and of a commit."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """The digest that ``text`` spells; raises DigestInvalid."""
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
        """The hexadecimal part."""
        return self[7:]


class DigestPrefix(str):
    """The beginning of a digest, as people type it: 6 hexadecimal digits or more, with or without ``sha256:``."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self | Digest:
        """The digest that ``text`` spells whole, or its beginning; raises DigestInvalid."""
        if reference.is_digest(text):
            return Digest(text)
        if not reference.is_digest_prefix(text):
            msg = (
                f"{text[:150]!r} is not a digest or the beginning of one: give 6 of its hexadecimal digits or more, in "
                "lower case, such as sha256:4bd093 or 4bd093."
            )
            raise DigestInvalid(msg, detail={"digest": text[:200]})
        return cls(text)

    @property
    def ranges(self) -> list[tuple[str, str]]:
        """Between which texts the digests are that begin so: from the first on, and below the second."""
        algorithm, _, digits = self.rpartition(":")
        return [(f"{each}:{digits}", f"{each}:{digits}g") for each in ("sha256", "sha512") if algorithm in {"", each}]


class Tag(str):
    """A tag: 1 to 128 of letters, digits, ``_``, ``.`` and ``-``; the first is no ``.`` or ``-``."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """The tag that ``text`` spells; raises TagInvalid."""
        if not reference.is_tag(text):
            alone = text.rpartition(":")[2]
            hint = f" Give the tag alone: {alone}." if alone != text and reference.is_tag(alone) else ""
            msg = (
                f"{text[:150]!r} is not a valid tag: use up to 128 letters, digits, '_', '.' and '-', not '.' or '-' "
                f"first.{hint}"
            )
            raise TagInvalid(msg, detail={"tag": text[:200]})
        return cls(text)


class RepositoryName(str):
    """``<organisation>/<name>``, whole; ``<name>`` may hold more slashes."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """The repository name that ``text`` spells; raises NameInvalid."""
        if len(text) > reference.MAX_NAME or not reference.is_name(text) or "/" not in text:
            raise NameInvalid(name_advice(text), detail={"name": text[:300]})
        return cls(text)

    @classmethod
    def of(cls, organisation: str, name: str) -> Self:
        """The repository ``name`` of ``organisation``; raises NameInvalid."""
        if not reference.is_name(name):
            raise NameInvalid(name_advice(name), detail={"name": name[:300]})
        return cls.parse(f"{organisation}/{name}")

    @property
    def organisation(self) -> str:
        """The slug of the organisation."""
        return self.partition("/")[0]

    @property
    def name(self) -> str:
        """What follows the organisation."""
        return self.partition("/")[2]


def check_length(host: str, name: RepositoryName) -> None:
    """Raise NameInvalid for a repository whose path is longer than clients take."""
    if len(host) + 1 + len(name) > reference.MAX_NAME:
        msg = f"{host}/{name} has more than {reference.MAX_NAME} characters, the most that Docker accepts."
        raise NameInvalid(msg)


def name_advice(text: str) -> str:
    """One sentence that says what is wrong with a name, and a name that would be right where there is one."""
    if len(text) > reference.MAX_NAME:
        return f"The name has {len(text)} characters; with HOST/ before it, it may have {reference.MAX_NAME}."
    near = reference.suggest_name(text)
    hint = f" {near!r} would be right." if near and near != text else ""
    return (
        f"{text[:100]!r} is not a valid name of a docker repository: it is <organisation>/<name>, each part of "
        f"lower-case letters and digits, with '.', '_' or '-' between them.{hint}"
    )


def parse_slug(text: str) -> str:
    """The slug of an organisation: one component of a name, at most 63 characters; raises NameInvalid."""
    if not reference.is_slug(text):
        msg = (
            f"{text[:100]!r} is not a valid name of an organisation: use up to {reference.MAX_SLUG} lower-case letters "
            "and digits, with '.', '_' or '-' between them, such as 'acme'."
        )
        raise NameInvalid(msg)
    return text


def parse_email(text: str) -> str:
    """An email address, in lower case; raises BadRequest. It names a user, and no mail is sent to it."""
    email = text.strip().lower()
    if not _EMAIL.match(email) or ".." in email:
        msg = f"{text[:100]!r} is not a valid email address, such as ann@acme.example."
        raise BadRequest(msg)
    return email


class Role(enum.IntEnum):
    """What a member may do; each includes those before it."""

    reader = 1
    writer = 2
    admin = 3

    @classmethod
    def parse(cls, text: str) -> Role:
        """The role of that name; raises BadRequest."""
        try:
            return cls[text]
        except KeyError:
            msg = f"{text[:50]!r} is not a role: choose reader, writer or admin."
            raise BadRequest(msg) from None


class Action(enum.StrEnum):
    """What a request does to a repository, in the words of the Docker token's scope."""

    pull = "pull"
    push = "push"
    delete = "delete"


ROLE_FOR: Final = {Action.pull: Role.reader, Action.push: Role.writer, Action.delete: Role.admin}
"""The least role that may."""


BITS: Final = {Action.pull: 1, Action.push: 2, Action.delete: 4}
"""Actions as a registry token has them: their sum."""
NAME_BYTES: Final = 12
"""Bytes of a name's SHA-256 that stand for it: nobody finds another name with the same 96 bits."""


def short_hash(name: RepositoryName) -> str:
    """16 characters that stand for the name of a repository."""
    return base64.urlsafe_b64encode(hashlib.sha256(name.encode()).digest()[:NAME_BYTES]).decode()


@dataclass(frozen=True, slots=True)
class Grants:
    """What a registry token allows: sums of BITS, small enough for 100 repositories in one header line.

    A repository is named by its id, which is never used twice. Where there was none yet when the token was made, it is
    named by a hash, and the token opens only one that its own user makes.
    """

    by_id: dict[int, int] = field(default_factory=dict)
    by_name: dict[str, int] = field(default_factory=dict)

    def allow(self, name: RepositoryName, repository_id: int | None, actions: Iterable[str]) -> None:
        """Add what is allowed in a repository, by its id, or by its name where it has none."""
        bits = sum(BITS[Action(each)] for each in actions)
        if repository_id is not None:
            self.by_id[repository_id] = bits
        else:
            self.by_name[short_hash(name)] = bits

    def bits(self, name: RepositoryName, repository_id: int | None, *, mine: bool) -> int:
        """What is allowed in the repository of that name; ``mine``: the token's user made it, or there is none."""
        found = self.by_id.get(repository_id, 0) if repository_id is not None else 0
        if not found and mine and self.by_name:
            found = self.by_name.get(short_hash(name), 0)
        return found

    def ids(self, action: Action) -> list[int]:
        """The repositories, of those that were there, in which the action is allowed."""
        return [each for each, bits in self.by_id.items() if bits & BITS[action]]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks: a user by a credential, or nobody (``user_id`` None). Rights are never in here but as a limit."""

    user_id: int | None = None
    access_token: str | None = None
    """The id of the access token that it all goes back to; None for a password."""
    password_version: int | None = None
    grants: Grants | None = field(default_factory=Grants)
    """What its registry token was made for; None where it is no registry token, and nothing but rights limit it."""
    catalog: bool = False
    kid: str | None = None
    """The key that signed its registry token; None where it is none."""
    address: str = ""
    """Where they ask from, for the audit log; not told for what is only read."""


ANYBODY: Final = Actor()


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A piece of content that a manifest names (image-spec, descriptor.md)."""

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
    """Microseconds since 1970 UTC, as every time in a row."""
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
