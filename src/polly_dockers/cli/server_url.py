"""The address of a server as a person types it."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from polly_dockers.cli.errors import UsageError

_HOST = (
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9A-Fa-f:.]+\])"
)
_ADDRESS = re.compile(rf"(?:(https?)://)?({_HOST})(?::([0-9]{{1,5}}))?/*", re.IGNORECASE)
_REGISTRY = re.compile(rf"{_HOST}(?::[0-9]{{1,5}})?")
_PORTS = 65_535


def normal(text: str) -> str:
    """Return ``https://HOST[:PORT]`` for what a person types. Without a scheme, a loopback address gets http.

    Raises UsageError if it is not the address of a server.
    """
    match = _ADDRESS.fullmatch(text.strip())
    if match is None or not 0 < int(match[3] or 1) <= _PORTS:
        msg = (
            f"{masked(text)!r} is not the address of a server. Valid examples: registry.acme.example, "
            "https://registry.acme.example:8443 and 127.0.0.1:5000, without a path or a user name."
        )
        raise UsageError(msg)
    host = match[2].lower()
    scheme = (match[1] or ("http" if _is_local(host) else "https")).lower()
    port = "" if match[3] is None or int(match[3]) == {"http": 80, "https": 443}[scheme] else f":{int(match[3])}"
    return f"{scheme}://{host}{port}"


def masked(text: str) -> str:
    """Return the text without what is before its last @, which may be a name and a password, for a message."""
    return re.sub(r"^([a-z]+://)?.*@", r"\1…@", text, flags=re.IGNORECASE | re.DOTALL)


def host(url: str) -> str:
    """Return ``HOST[:PORT]`` of a normal address."""
    return url.partition("://")[2]


def is_plain(url: str) -> bool:
    """Return whether the connection is not encrypted: http to another machine."""
    return url.startswith("http://") and not _is_local(urlsplit(url).hostname or "")


def _is_local(host: str) -> bool:
    """Return whether a host is this machine; ``localhost.acme.example`` and ``127.acme.example`` are not."""
    import ipaddress

    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_registry(text: str) -> bool:
    """Return whether the text is ``HOST[:PORT]`` and nothing else, so that it is safe in a shell command."""
    return _REGISTRY.fullmatch(text) is not None
