"""Addresses of clients and proxies: one spelling for one address, and who is believed."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polly_dockers.system import addresses

PROXIES = tuple(map(addresses.network, ("10.0.0.0/8", "fd00::/8", "192.0.2.7")))


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:c000:0201", "192.0.2.1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::1", "::1"),
    ],
)
def test_one_address_has_one_spelling(text: str, written: str) -> None:
    """IPv4 from an IPv6 socket is IPv4; zones and upper case make no other address."""
    assert str(addresses.parse(text)) == written
    assert addresses.client(text, (), ()) == written


@given(st.ip_addresses(v=4))
def test_ipv4_on_an_ipv6_socket_counts_as_itself(address: IPv4Address) -> None:
    """Two IPv4 clients never share a network, whichever socket they came by, and never count as IPv6."""
    assert addresses.block(f"::ffff:{address}") == addresses.block(str(address)) == str(address)
    assert addresses.client(f"::ffff:{address}", (), ()) == str(address)


def test_ipv6_counts_by_its_64_bits() -> None:
    """A client has a whole /64 at least, so a /64 counts as one address."""
    one, same, other = "2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff", "2001:db8:0:2::1"
    assert addresses.block(one) == addresses.block(same) == "2001:db8:0:1::/64"
    assert addresses.block(one) != addresses.block(other)
    assert addresses.block("fe80::1%eth0") == "fe80::/64"
    assert addresses.block("unknown") == "unknown"


@pytest.mark.parametrize("text", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_this_machine(text: str) -> None:
    """Each spelling of loopback is known as one."""
    assert addresses.is_loopback(text)


@pytest.mark.parametrize("text", ["10.0.0.1", "::2", "::ffff:10.0.0.1", "unknown", ""])
def test_other_machines(text: str) -> None:
    """What is not loopback is not taken for it."""
    assert not addresses.is_loopback(text)


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("198.51.100.1", ["203.0.113.9"], "198.51.100.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("::ffff:10.0.0.1", ["::ffff:203.0.113.9"], "203.0.113.9"),
        ("fd00::1", ["203.0.113.9:4711"], "203.0.113.9"),
        ("10.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("10.0.0.1", ['"[2001:DB8::1]"'], "2001:db8::1"),
        ("10.0.0.1", ["2001:db8::1"], "2001:db8::1"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.9, 192.0.2.7:80, 10.9.9.9"], "203.0.113.9"),
        ("10.0.0.1", ["1.1.1.1", "203.0.113.9 , 10.9.9.9"], "203.0.113.9"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["203.0.113.9, 127.0.0.1"], "127.0.0.1"),
        ("10.0.0.1", ["203.0.113.9, junk"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9, junk, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["203.0.113.9,"], "10.0.0.1"),
        ("10.0.0.1", ["999.1.1.1"], "10.0.0.1"),
        ("10.0.0.1", ["[10.0.0.2"], "10.0.0.1"),
        ("10.0.0.1", ["1.1.1.1:port"], "10.0.0.1"),
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        (None, ["1.1.1.1"], "unknown"),
        ("", [], "unknown"),
    ],
)
def test_who_the_client_is(peer: str | None, forwarded: list[str], client: str) -> None:
    """The first from the right that is not a trusted proxy; what is not an address ends the search before it."""
    assert addresses.client(peer, forwarded, PROXIES) == client


@given(st.text(max_size=80), st.lists(st.text('0123456789abcdef.:[]", %x', max_size=60), max_size=4))
def test_any_header(peer: str, forwarded: list[str]) -> None:
    """Whatever the header contains, the client's address is one printable line, and nothing fails."""
    assert addresses.client("10.0.0.1", forwarded, PROXIES).isprintable()
    addresses.client(peer, forwarded, PROXIES)
    addresses.block(peer)


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.0.0.1", "10.0.0.1/32"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("::1", "::1/128"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:10.0.0.1", "10.0.0.1/32"),
    ],
)
def test_networks(text: str, network: str) -> None:
    """An address is a network of its own, and IPv4 written as IPv6 is IPv4."""
    assert addresses.network(text) == ip_network(network)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("10.0.0.1/8", "10.0.0.0/8"),
        ("::ffff:10.0.0.1/104", "10.0.0.0/8"),
        ("proxy.example", "proxy.example"),
        ("10.0.0.0/33", "10.0.0.0/33"),
        ("10.0.0", "10.0.0"),
    ],
)
def test_networks_that_are_none(text: str, why: str) -> None:
    """The error repeats the text, or names the network that was probably meant."""
    with pytest.raises(ValueError, match=why):
        addresses.network(text)
