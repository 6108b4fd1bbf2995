"""Names, addresses and spans of time as people type them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polly_dockers.cli import repository_names, server_url, times
from polly_dockers.cli.errors import UsageError
from polly_dockers.oci import reference

REGISTRY = "registry.acme.example"


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("registry.acme.example", "https://registry.acme.example"),
        (" https://Registry.Acme.example/ ", "https://registry.acme.example"),
        ("registry.acme.example:8443", "https://registry.acme.example:8443"),
        ("https://registry.acme.example:443", "https://registry.acme.example"),
        ("http://registry:80", "http://registry"),
        ("127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("localhost", "http://localhost"),
        ("https://localhost:5000", "https://localhost:5000"),
        ("[::1]:5000", "http://[::1]:5000"),
        ("127.9.8.7", "http://127.9.8.7"),
        ("localhost.acme.example", "https://localhost.acme.example"),
        ("127.acme.example:5000", "https://127.acme.example:5000"),
    ],
)
def test_addresses_get_one_form(text: str, normal: str) -> None:
    """An address without a scheme is https, except for this machine; the default port is left out."""
    assert server_url.normal(text) == normal
    assert server_url.normal(normal) == normal


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "ftp://x", "http://", "a b", "ann@host", "https://ann:pw@host", "host/path", "host?x", "-host"),
        *("host:0", "host:65536", "host:port", "a..b", "é.example"),
    ],
)
def test_junk_is_no_address(text: str) -> None:
    """The message shows valid addresses."""
    with pytest.raises(UsageError, match=r"registry\.acme\.example"):
        server_url.normal(text)


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("http://127.0.0.1:5000", False),
        ("http://[::1]:5000", False),
        ("http://localhost", False),
        ("https://acme.example", False),
        ("http://acme.example", True),
        ("http://localhost.acme.example", True),
        ("http://127.acme.example:5000", True),
    ],
)
def test_secrets_that_others_could_read_are_warned_of(url: str, *, plain: bool) -> None:
    """A name that only begins like a name of this machine is another machine."""
    assert server_url.is_plain(url) is plain


@pytest.mark.parametrize("text", ["host", "host:5000", "127.0.0.1:1", "[::1]:5000", "a-b.example"])
def test_registries_are_hosts(text: str) -> None:
    """A registry is HOST or HOST:PORT."""
    assert server_url.is_registry(text)


@pytest.mark.parametrize("text", ["", "host/x", "host;x", "$(x)", "host 1", "host\n", "'host'", "-u"])
def test_what_is_no_host_never_reaches_a_shell(text: str) -> None:
    """A server cannot put a command into the line that people paste into a shell."""
    assert not server_url.is_registry(text)


def test_secrets_in_the_clear_are_noticed() -> None:
    """Plain HTTP to another machine is noticed, and nothing else."""
    assert server_url.is_plain("http://registry.acme.example")
    assert not server_url.is_plain("http://127.0.0.1:5000")
    assert not server_url.is_plain("https://registry.acme.example")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("new_repo", (None, "new_repo")),
        ("team/gpu", (None, "team/gpu")),
        (f"{REGISTRY}/acme/team/gpu", ("acme", "team/gpu")),
        (f"https://{REGISTRY}/acme/one", ("acme", "one")),
        (f"docker://{REGISTRY}/acme/one", ("acme", "one")),
    ],
)
def test_names_and_whole_paths(text: str, expected: tuple[str | None, str]) -> None:
    """A name alone has no organisation; a path has both."""
    assert repository_names.split(text, REGISTRY) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Acme", "Try --name acme"),
        ("a//b", "Try --name a/b"),
        ("ümlaut", "Try --name mlaut"),
        ("-", "is not a valid name"),
        ("a___b", 'one or two "_", or any number of "-"'),
        ("one:v1", "ends with the tag 'v1'"),
        (f"{REGISTRY}/acme/one@sha256:1", "ends with the digest 'sha256:1'"),
        (f"{REGISTRY}/acme", "is not a docker repository"),
        (f"{REGISTRY}/acme/{'x' * 230}", "too long"),
        ("other.example/acme/one", "give --server other.example or the --profile of that server"),
        ("localhost:5000/acme/one", "on another server"),
    ],
)
def test_wrong_names_are_told_what_is_right(text: str, told: str) -> None:
    """The message is one sentence that says what to do."""
    with pytest.raises(UsageError, match=told):
        repository_names.split(text, REGISTRY)


@given(st.text())
def test_a_suggestion_is_always_a_name(text: str) -> None:
    """A name that an error offers is valid."""
    form = reference.suggest_name(text)
    if form and len(form) < 200 and not form.startswith(f"{REGISTRY}/"):
        try:
            assert repository_names.split(form, REGISTRY) == (None, form)
        except UsageError as error:
            assert "another server" in error.message  # noqa: PT017 - "a.b/c" may be a path of the server a.b


@pytest.mark.parametrize(
    ("text", "seconds"), [("1m", 60), ("30m", 1800), ("12h", 43_200), ("7D", 604_800), ("365d", 31_536_000)]
)
def test_spans_of_time(text: str, seconds: int) -> None:
    """Minutes, hours and days."""
    assert times.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "0m", "12", "30s", "366d", "-1h", "1.5h", "1h30m", "\u0661h"])
def test_wrong_spans_of_time(text: str) -> None:
    """The message shows valid spans."""
    with pytest.raises(UsageError, match="30m, 12h and 7d"):
        times.seconds(text)
