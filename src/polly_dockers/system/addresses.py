"""IP addresses of clients and proxies.

A socket for IPv6 and IPv4 shows an IPv4 client as ``::ffff:192.0.2.1``. All functions here treat that as ``192.0.2.1``.
Otherwise all IPv4 clients would be in one IPv6 network, and none in an IPv4 network.
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
"""The name of a peer that has no address."""
SITE: Final = 64
"""Length of the IPv6 prefix that one customer has (RFC 6177). The customer chooses the rest of the address."""

_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_MAPPED_BITS: Final = 96
_HOP: Final = re.compile(
    r'"?(?:\[([0-9A-Fa-f:.]{2,45})\](?::[0-9]{1,5})?|([0-9.]{7,15}):[0-9]{1,5}|([0-9A-Fa-f:.]{2,45}))"?\Z'
)
"""An entry of X-Forwarded-For: an address, an IPv4 one with its port, or one in brackets with or without a port."""


@functools.lru_cache(maxsize=4096)
def parse(text: str) -> Address | None:
    """The address, without the zone of a link-local one; None if the text is not an address."""
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
    """The address of the client of a request: the peer, or the address that trusted proxies give.

    ``forwarded``: values of X-Forwarded-For in their order. Each proxy appends its peer at the right, so they are read
    from the right: the first address that is not a trusted proxy is the client. What the client itself wrote is further
    left. A value that is not an address ends the search, and the proxy that sent it counts as the client.
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
    """What counts as one client, for throttles and for memory: an IPv4 address, or an IPv6 address's /64 network."""
    address = parse(text)
    if isinstance(address, IPv6Address):
        return str(IPv6Network((int(address), SITE), strict=False))
    return text if address is None else str(address)


def neighbourhood(text: str) -> str:
    """The larger network of an address: the /24 of an IPv4 address, the /48 of an IPv6 address."""
    address = parse(text)
    if address is None:
        return text
    return str(ipaddress.ip_network((address, 24 if address.version == 4 else 48), strict=False))  # noqa: PLR2004


def network(text: str) -> Network:
    """The network of an address or of CIDR notation; raises ValueError that says what is wrong."""
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
