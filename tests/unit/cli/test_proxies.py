"""Whether a server is reached through a proxy: by the rules of Go's httpproxy, so that polly does what docker does."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polly_dockers.cli.errors import CommandError
from polly_dockers.cli.proxies import choose, is_direct

BOTH = {"HTTP_PROXY": "http://one:3128", "HTTPS_PROXY": "http://two:3128"}


@pytest.mark.parametrize(
    "url",
    ["http://localhost", "https://localhost:5000", "http://127.0.0.1:5000", "http://127.9.8.7", "https://[::1]:443",
     "http://[::ffff:127.0.0.1]"],
)  # fmt: skip
def test_loopback_never_goes_through_a_proxy(url: str) -> None:
    """Whatever NO_PROXY says."""
    assert choose(url, BOTH) is None
    assert choose(url, BOTH | {"NO_PROXY": "acme.example"}) is None


@pytest.mark.parametrize(
    ("entry", "host", "port", "direct"),
    [
        ("10.0.0.0/8", "10.1.2.3", 443, True),
        ("10.0.0.0/8", "::ffff:10.1.2.3", 443, True),
        ("10.0.0.0/8", "11.1.2.3", 443, False),
        ("10.1.2.3/8", "10.9.9.9", 443, True),
        ("10.0.0.0/8", "10.acme.example", 443, False),
        ("2001:db8::/32", "2001:db8::7", 443, True),
        ("::ffff:10.0.0.0/104", "10.1.2.3", 443, True),
        ("::/0", "10.1.2.3", 443, False),
        ("10.1.2.3", "10.1.2.3", 443, True),
        ("10.1.2.3:443", "10.1.2.3", 443, True),
        ("10.1.2.3:443", "10.1.2.3", 5000, False),
        ("[2001:db8::1]:443", "2001:db8::1", 443, True),
        ("acme.example", "acme.example", 443, True),
        ("acme.example", "registry.acme.example", 443, True),
        ("acme.example", "notacme.example", 443, False),
        (".acme.example", "registry.acme.example", 443, True),
        (".acme.example", "acme.example", 443, False),
        ("*.acme.example", "registry.acme.example", 443, True),
        ("*.acme.example", "acme.example", 443, False),
        ("acme.example:443", "registry.acme.example", 443, True),
        ("acme.example:443", "registry.acme.example", 80, False),
        ("ACME.example", "registry.acme.example", 443, True),
        ("other.example, , acme.example ", "acme.example", 443, True),
        ("m\u00fcller.example", "xn--mller-kva.example", 443, True),
        ("*", "anything.example", 443, True),
        ("other.example,*", "10.1.2.3", 443, True),
        ("10.", "10.1.2.3", 443, False),
        ("10.1.2.3/99", "10.1.2.3", 443, False),
        (":443", "acme.example", 443, False),
        ("http://acme.example", "acme.example", 443, False),
        ("", "acme.example", 443, False),
    ],
)
def test_no_proxy_is_read_as_go_reads_it(entry: str, host: str, port: int, *, direct: bool) -> None:
    """Networks, addresses, domains with and without a dot before them, ports, and a star."""
    assert is_direct(host, port, entry) is direct


@given(st.text(), st.text())
def test_no_proxy_of_any_text_is_read(entry: str, host: str) -> None:
    """An entry that is malformed matches no host, and causes no error."""
    assert is_direct(host, 443, entry) in {True, False}


def test_each_scheme_has_its_variable() -> None:
    """The variable in upper case comes first. ALL_PROXY is not read, because docker does not read it."""
    assert choose("http://acme.example", BOTH) == ("http://one:3128", "")
    assert choose("https://acme.example", BOTH) == ("http://two:3128", "")
    assert choose("https://acme.example", {"https_proxy": "three"}) == ("http://three:80", "")
    assert choose("https://acme.example", {"https_proxy": "three", "HTTPS_PROXY": "four:1"}) == ("http://four:1", "")
    assert choose("https://acme.example", {"HTTP_PROXY": "http://one", "ALL_PROXY": "http://all"}) is None
    assert choose("https://acme.example", {"HTTPS_PROXY": "https://[2001:DB8::1]"}) == ("https://[2001:db8::1]:443", "")


def test_a_name_and_a_password_are_apart_from_the_address() -> None:
    """User and password of a proxy are decoded, and removed from every address that could be shown."""
    proxy = choose("https://acme.example", {"HTTPS_PROXY": "http://ann%40acme:p%C3%A4ss%3Aw@proxy:3128/"})
    assert proxy is not None
    assert proxy.url == "http://proxy:3128"
    assert base64.b64decode(proxy.authorization.removeprefix("Basic ")).decode() == "ann@acme:p\u00e4ss:w"


@pytest.mark.parametrize(
    "text",
    ["http://ann:secret@", "socks5://ann:secret@proxy:1080", "http://ann:secret@proxy:port", "ann:secret@pro xy"],
)
def test_what_is_no_proxy_is_named_and_not_shown(text: str) -> None:
    """The error names the variable and its form, and does not repeat the password in it."""
    with pytest.raises(CommandError, match=r"HTTPS_PROXY is not the address of a proxy\. Use http://HOST") as told:
        choose("https://acme.example", {"HTTPS_PROXY": text})
    assert "secret" not in str(told.value)


def test_a_variable_that_a_stranger_may_have_set_is_refused() -> None:
    """A web server passes a header "Proxy" to its CGI programs as HTTP_PROXY, so a client could set it."""
    with pytest.raises(CommandError, match="REQUEST_METHOD"):
        choose("http://acme.example", BOTH | {"REQUEST_METHOD": "GET"})
