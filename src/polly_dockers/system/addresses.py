"""Addresses of clients and proxies: parsed once, and written in one way.

A socket that takes IPv6 and IPv4 calls an IPv4 client ``::ffff:192.0.2.1``. Everything here takes that for the
``192.0.2.1`` that it is: else all IPv4 clients would lie in one IPv6 network, and none in an IPv4 one.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

UNKNOWN: Final = "unknown"
"""What a peer without an address is called."""
SITE: Final = 64
"""Bits of an IPv6 address that one customer has at least (RFC 6177): the rest is theirs to change as they like."""

_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_MAPPED_BITS: Final = 96
_HOP: Final = re.compile(
    r'"?(?:\[([0-9A-Fa-f:.]{2,45})\](?::[0-9]{1,5})?|([0-9.]{7,15}):[0-9]{1,5}|([0-9A-Fa-f:.]{2,45}))"?\Z'
)
"""An entry of X-Forwarded-For: an address, an IPv4 one with its port, or one in brackets with or without a port."""


@functools.lru_cache(maxsize=4096)
def parse(text: str) -> Address | None:
    """The address, without the zone of a link-local one, IPv4 as IPv4; None for what is not an address."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def is_loopback(text: str) -> bool:
    """Whether it is the address of a client on this machine."""
    address = parse(text)
    return address is not None and address.is_loopback


def client(peer: str | None, forwarded: Iterable[str], proxies: Sequence[Network]) -> str:
    """Who a request comes from: the peer, or what trusted proxies say of it.

    ``forwarded``: values of X-Forwarded-For in their order. Each proxy appends its peer at the right, so they are read
    from there: the first that is not a trusted proxy is the client, whatever it wrote itself further left. What is
    not an address ends the search, and the proxy that passed it on stands for the client.
    """
    address = parse(peer) if peer else None
    if address is None:
        return peer or UNKNOWN
    if proxies:
        hops = ",".join(forwarded).split(",")
        while hops and _lies_in(address, proxies):
            hop = _HOP.match(hops.pop().strip())
            found = parse(hop[1] or hop[2] or hop[3]) if hop is not None else None
            if found is None:
                break
            address = found
    return str(address)


def _lies_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


def block(text: str) -> str:
    """What an address counts under where attempts are counted: itself, or the /64 of an IPv6 address."""
    address = parse(text)
    if isinstance(address, IPv6Address):
        return str(IPv6Network((int(address), SITE), strict=False))
    return text if address is None else str(address)


def neighbourhood(text: str) -> str:
    """The network that an address stands for in a crowd: the /24 of an IPv4 address, the /48 of an IPv6 address."""
    address = parse(text)
    if address is None:
        return text
    return str(ipaddress.ip_network((address, 24 if address.version == 4 else 48), strict=False))  # noqa: PLR2004


def network(text: str) -> Network:
    """An address or a network in CIDR notation, IPv4 as IPv4; raises ValueError that says what is wrong."""
    try:
        found = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        msg = f"{text!r} is not an address or a network"
        raise ValueError(msg) from error
    if isinstance(found, IPv6Network) and found.subnet_of(_MAPPED):
        address, prefix = IPv4Address(int(found.network_address) & 0xFFFFFFFF), found.prefixlen - _MAPPED_BITS
        found = IPv4Network((address, prefix))
    given = parse(text.partition("/")[0])
    if given != found.network_address:
        msg = f"{text!r} is an address within a network: write {found} for the network, {given} for the address"
        raise ValueError(msg)
    return found
