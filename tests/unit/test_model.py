"""The domain types: which texts are valid, and which are refused."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polly_dockers.errors import BadRequest, DigestInvalid, NameInvalid, TagInvalid
from polly_dockers.model import Action, Digest, RepositoryName, Role, Tag, name_advice, parse_email, parse_slug

COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
ANY = st.text(max_size=300) | st.text("abAB01._-/:@ \n\0é", max_size=300)


@given(st.from_regex(r"\A(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\Z"))
def test_digests(text: str) -> None:
    """A digest has an algorithm and its hexadecimal part, and is its own text."""
    digest = Digest.parse(text)
    assert f"{digest.algorithm}:{digest.hex}" == digest == text


@given(ANY | st.from_regex(r"sha(256|512):[0-9a-fA-F]{60,130}\n?"))
def test_what_is_no_digest(text: str) -> None:
    """Whatever is not of the exact form is refused."""
    if re.fullmatch("sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}", text) and not text.endswith("\n"):
        assert Digest.parse(text) == text
    else:
        with pytest.raises(DigestInvalid):
            Digest.parse(text)


def test_a_pasted_image_is_no_tag() -> None:
    """The error shows the text, and the tag in it."""
    with pytest.raises(TagInvalid, match=r"'hello:v1' is not a valid tag.* Give only the tag: v1\."):
        Tag.parse("hello:v1")


@given(ANY | st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,130}\n?"))
def test_tags(text: str) -> None:
    """The grammar of the specification, to the last character."""
    if re.fullmatch(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", text):
        assert Tag.parse(text) == text
    else:
        with pytest.raises(TagInvalid):
            Tag.parse(text)


@given(ANY | st.from_regex(rf"{COMPONENT}(/{COMPONENT}){{0,4}}\n?"))
def test_names(text: str) -> None:
    """Two components at least, 255 characters at most; the parts put together are the name."""
    if re.fullmatch(rf"{COMPONENT}(?:/{COMPONENT})+", text) and len(text) <= 255:
        name = RepositoryName.parse(text)
        assert f"{name.organisation}/{name.name}" == name
        assert RepositoryName.of(name.organisation, name.name) == name
    else:
        with pytest.raises(NameInvalid):
            RepositoryName.parse(text)


@given(ANY)
def test_advice_is_good(text: str) -> None:
    """Each name that the message suggests is valid."""
    found = re.search(r" '([^']*)' would be right\.\Z", name_advice(text))
    if found:
        assert RepositoryName.of("acme", found[1])


@pytest.mark.parametrize(("text", "right"), [("My Image", "my-image"), ("/a/", "a"), ("A//B", "a/b"), ("x_", "x")])
def test_advice(text: str, right: str) -> None:
    """The error for a text that is nearly a valid name gives the valid name."""
    assert f"{right!r} would be right" in name_advice(text)


@given(ANY | st.from_regex(rf"{COMPONENT}\n?"))
def test_slugs(text: str) -> None:
    """One component, 63 characters at most."""
    if re.fullmatch(COMPONENT, text) and len(text) <= 63:
        assert parse_slug(text) == text
    else:
        with pytest.raises(NameInvalid):
            parse_slug(text)


@pytest.mark.parametrize(
    "text", ["ann@acme.example", " Ann@ACME.example\n", "a+b.c@x-y.example", "o'neil@x", "a@1.2.3.4"]
)
def test_emails(text: str) -> None:
    """Emails are changed to lower case and stripped of white space."""
    assert parse_email(text) == text.strip().lower()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ann",
        "@acme.example",
        "ann@",
        "a b@c",
        "a@b@c",
        "a..b@c.example",
        "a@b..c",
        "a@-b",
        "a@b-",
        "ä@b",
        "a@b/c",
        "a@b\nc",
    ],
)
def test_what_is_no_email(text: str) -> None:
    """An invalid email is refused with an example of a valid one."""
    with pytest.raises(BadRequest, match=r"ann@acme\.example"):
        parse_email(text)


@given(ANY)
def test_an_email_is_safe_to_print(text: str) -> None:
    """An accepted email has no white space or control character, and at most 254 characters."""
    try:
        email = parse_email(text)
    except BadRequest:
        return
    assert re.fullmatch(r"[!-~]{3,254}", email)
    assert parse_email(email) == email


def test_roles() -> None:
    """Each role includes those before it, and the error for an unknown one names them."""
    assert Role.reader < Role.writer < Role.admin
    assert [Role.parse(role.name) for role in Role] == list(Role)
    for text in ("", "Admin", "owner", "1"):
        with pytest.raises(BadRequest, match="reader, writer or admin"):
            Role.parse(text)
    assert {action.value for action in Action} == {"pull", "push", "delete"}
