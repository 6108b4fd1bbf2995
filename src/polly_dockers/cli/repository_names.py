"""Names of docker repositories as people type and paste them. The server has the last word; this is faster."""

from __future__ import annotations

import re

from polly_dockers.cli import profiles
from polly_dockers.cli.errors import UsageError
from polly_dockers.oci import reference


def split(text: str, registry: str, option: str = "--name") -> tuple[str | None, str]:
    """Return (organisation, name) of ``HOST/org/name``, and (None, name) of a bare ``name``.

    Raises UsageError for the path of another server, and for an image with a tag or a digest.
    """
    _check_secret(text, option)
    bare = re.sub(r"^(?:https?|docker)://", "", text.strip())
    first, _, rest = bare.partition("/")
    if rest and profiles.same(first, registry):
        organisation, _, name = rest.partition("/")
        if not name:
            msg = f"{option} {text!r} is not a docker repository. Use {registry}/{organisation}/NAME."
            raise UsageError(msg)
        return organisation, _checked(name, registry, organisation, option)
    if rest and re.fullmatch(r".+:[0-9]+|.+\.[a-z]{2,}|localhost", first):
        msg = (
            f"{option} {text!r} is on another server than {registry}. To work there, give --server {first} or "
            "the --profile of that server. If you are not signed in to it: polly login --server URL"
        )
        raise UsageError(msg)
    return None, _checked(bare, registry, "", option)


def version(text: str) -> tuple[str, str, str]:
    """Return (repository, option, version) of a pasted image: ``("hello", "--tag", "v2")`` for ``hello:v2``.

    For ``hello:v2@sha256:…`` it is the digest. Option and version are empty if the text has neither. Raises UsageError
    for an address with a user name or a password.
    """
    _check_secret(text, "--name")
    plain, tag, digest = reference.split(text.strip())
    if "@" in text:
        return plain, "--commit", digest
    return (plain, "--tag", tag) if plain != text.strip() else (plain, "", "")


def _check_secret(text: str, option: str) -> None:
    """Raise UsageError for ``https://ann:password@host/…``; the message does not show the password."""
    if re.match(r"\s*(?:https?|docker)://[^/]*@", text, re.IGNORECASE):
        msg = f"{option} contains a user name or a password. Use HOST/ORGANISATION/NAME."
        raise UsageError(msg)


def is_one(text: str, registry: str) -> bool:
    """Return whether the text names a docker repository of this registry."""
    try:
        split(text, registry)
    except UsageError:
        return False
    return True


def commit(text: str) -> str:
    """Return a digest or the beginning of one, also from a pasted ``HOST/org/name@sha256:…``.

    Raises UsageError for anything else.
    """
    digest = text.strip().rpartition("@")[2].lower()
    if not reference.is_digest_prefix(digest):
        msg = (
            f"--commit {text!r} is not a digest or the beginning of one: at least 6 hexadecimal digits, with or "
            "without sha256: before them. See `polly dockers commit-list`."
        )
        raise UsageError(msg)
    return digest


def _checked(name: str, registry: str, organisation: str, option: str) -> str:
    repository, mark, version = name.partition("@") if "@" in name else name.partition(":")
    if mark and reference.is_name(repository):
        kind = "digest" if mark == "@" else "tag"
        msg = f"{option} {name!r} ends with the {kind} {version!r}. Use {option} {repository}."
        raise UsageError(msg)
    if not reference.is_name(name):
        form = reference.suggest_name(name)
        better = f" Try {option} {form}." if form else ""
        msg = (
            f"{option} {name!r} is not a valid name of a docker repository. Names are lower-case letters and digits; "
            f'between them one ".", one or two "_", or any number of "-"; and "/" between the parts.{better}'
        )
        raise UsageError(msg)
    if len(f"{registry}/{organisation}/{name}") > reference.MAX_NAME:
        msg = (
            f"{option} is too long: HOST/organisation/name may have {reference.MAX_NAME} characters, "
            f"including {registry}/{organisation}/."
        )
        raise UsageError(msg)
    return name
