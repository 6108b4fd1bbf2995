"""The proxy for a server from the environment, by the same rules as Docker and other programs in Go.

The rules are those of Go's ``golang.org/x/net/http/httpproxy``, so that ``polly`` and ``docker`` use the same proxy:

- ``HTTPS_PROXY`` is for https, ``HTTP_PROXY`` for http; the upper-case name overrides the lower-case one.
- ``localhost`` and loopback addresses are always reached directly.
- ``NO_PROXY`` is a list of addresses, networks (``10.0.0.0/8``), domains and ``*``. ``acme.example`` is the host and
  all below it, ``.acme.example`` and ``*.acme.example`` are only those below it. A port after an address or a domain
  limits it to that port.
"""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

from polly_dockers.cli.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Mapping

_PORTS = {"http": 80, "https": 443}
_HOST_PORT = re.compile(r"(?:\[([^\[\]]*)\]|([^:\[\]]*)):([^:\[\]]*)")
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Proxy(NamedTuple):
    """A proxy. A name and a password in its address are not in ``url`` but in ``authorization``."""

    url: str
    """``http://HOST:PORT`` or ``https://HOST:PORT``."""
    authorization: str
    """The value of ``Proxy-Authorization``; empty for none."""


def choose(url: str, environment: Mapping[str, str]) -> Proxy | None:
    """Return the proxy for the address of a server; None for a direct connection.

    Raises CommandError if the variable is not the address of a proxy. The message does not show it, because it may
    contain a password.
    """
    target = urlsplit(url)
    name = f"{target.scheme}_proxy".upper()
    named = _any(environment, name)
    if not named:
        return None
    if name == "HTTP_PROXY" and environment.get("REQUEST_METHOD"):
        msg = "HTTP_PROXY is not used if REQUEST_METHOD is set: a stranger's request may have set it (CGI)."
        raise CommandError(msg)
    if is_direct(target.hostname or "", target.port or _PORTS[target.scheme], _any(environment, "NO_PROXY")):
        return None
    return _parsed(name, named)


def is_direct(host: str, port: int, no_proxy: str) -> bool:
    """Return whether a host (lower case, without brackets) is reached without a proxy."""
    address = _address(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    entries = [each.strip().lower() for each in no_proxy.split(",")]
    return "*" in entries or any(_matches(each, host, port, address) for each in entries if each)


def _matches(entry: str, host: str, port: int, address: _Address | None) -> bool:
    """Return whether an entry of NO_PROXY matches the host; an invalid one matches none."""
    if re.fullmatch(r"[^/]+/[0-9]+", entry):
        with contextlib.suppress(ValueError):
            return address is not None and address in _network(entry)
    match = _HOST_PORT.fullmatch(entry)
    name, only = ((match[1] or match[2] or ""), match[3]) if match else (entry, "")
    if not name or (only and only != str(port)):
        return False
    wanted = _address(name)
    if address is not None or wanted is not None:
        return address == wanted
    name = name.removeprefix("*") if name.startswith("*.") else name
    with contextlib.suppress(UnicodeError):
        name = name.encode("idna").decode()
    return host.endswith(name) if name.startswith(".") else host == name or host.endswith(f".{name}")


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Return a network; for ``::ffff:10.0.0.0/104`` the IPv4 network in it. Raises ValueError."""
    network = ipaddress.ip_network(text, strict=False)
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    length = network.prefixlen - 96
    return ipaddress.ip_network(f"{mapped}/{length}") if mapped and length >= 0 else network


def _address(text: str) -> _Address | None:
    """Return an IP address, for ``::ffff:10.0.0.1`` the IPv4 address in it; None for other text."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _parsed(name: str, text: str) -> Proxy:
    msg = f"{name} is not the address of a proxy. Use http://HOST:PORT, or http://NAME:PASSWORD@HOST:PORT."
    try:
        parts = urlsplit(text)
        if not parts.scheme or not parts.netloc:
            parts = urlsplit(f"http://{text}")
        port = _PORTS[parts.scheme] if parts.port is None else parts.port
    except (ValueError, KeyError) as error:
        raise CommandError(msg) from error
    host = parts.hostname
    if parts.scheme not in _PORTS or not port or not host or not re.fullmatch(r"[a-z0-9._:-]+", host):
        raise CommandError(msg)
    authorization = ""
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode("utf-8", "surrogateescape")
        authorization = f"Basic {base64.b64encode(user).decode()}"
    return Proxy(f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}", authorization)


def _any(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name) or environment.get(name.lower()) or ""
