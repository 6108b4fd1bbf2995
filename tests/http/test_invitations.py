"""Invitations: a code for an email, redeemed once, by a person with or without an account."""

from __future__ import annotations

import contextlib
import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pysqlite3.dbapi2 as sqlite
import pytest

from support.server import new_password, polly_server
from support.wire_client import Client, Person, bearer, member, new_admin, stranger

if TYPE_CHECKING:
    from support.server import Server


@pytest.fixture
def bob(ann: Person) -> Person:
    """Somebody who was never here."""
    return Person(ann.port, ann.org, f"bob-{secrets.token_hex(5)}@guest.example", new_password())


def users(server: Server) -> set[str]:
    """The emails of all accounts."""
    with contextlib.closing(sqlite.connect(f"file:{server.data / 'polly.db'}?mode=ro", uri=True)) as connection:
        return {email for (email,) in connection.execute("SELECT email FROM users")}


def pending(person: Person) -> list[str]:
    """Who was invited to the organisation and has not joined."""
    return [item["email"] for item in person.api.get(f"{person.base}/invitations?limit=1000").json()["items"]]


def redeem(person: Person, code: str) -> Any:  # noqa: ANN401 - an answer
    """Redeem a code, signed in."""
    return person.api.json("POST", "/api/v1/invitation", {"code": code})


def test_a_new_person_joins_with_a_password_of_their_own(server: Server, ann: Person, bob: Person) -> None:
    """An invitation makes no account; redeeming the code does, and the admin never sees a password."""
    made = ann.api.json("POST", f"{ann.base}/invitations", {"email": bob.email, "role": "writer"})
    assert (made.status, made.header("Cache-Control")) == (201, "no-store")
    assert set(made.json()) == {"email", "role", "code", "expires_at"}
    assert bob.email in pending(ann)
    assert bob.email not in users(server)
    assert bob.by_password.get("/token").status == 401
    assert bob.accept(made.json()["code"]).json() == {"organisation": ann.org, "role": "writer", "email": bob.email}
    assert bob.email not in pending(ann)
    assert bob.create()


def test_who_has_an_account_joins_signed_in_or_with_its_password(server: Server, ann: Person) -> None:
    """A person with an account joins with its password, which does not change; a wrong password is refused."""
    other = new_admin(server)
    carl, dora = ann.add("reader"), ann.add("reader")
    assert redeem(carl, other.invite(carl.email, "reader")).status == 200
    code = other.invite(dora.email, "admin")
    refused = dora.accept(code, "another password")
    assert (refused.status, refused.code) == (401, "UNAUTHORIZED")
    assert dora.by_password.get("/token").status == 200
    assert dora.accept(code).status == 200
    assert dora.elsewhere(other.org).api.get(f"{other.base}/audit").status == 200


@pytest.mark.parametrize("password", ["x", "x" * 1025, "polly_is_a_token", "with\ta tab in it"])
def test_a_password_that_is_none_tells_of_no_account(server: Server, bob: Person, password: str) -> None:
    """A code with an invalid password gets the same error whether the email has an account or not."""
    eve, carl = new_admin(server), member(server, "reader")
    told = []
    for person in (carl, bob):
        answer = person.accept(eve.invite(person.email, "reader"), password)
        told.append((answer.status, answer.code, answer.message.replace(person.email, "")))
    assert told[0] == told[1]
    assert told[0][0] == 400


def test_a_code_is_for_one_email_and_one_use(server: Server, ann: Person, bob: Person) -> None:
    """404 INVITATION_UNKNOWN for another email, signed in or not, and for a second time; the right one joins."""
    code = ann.invite(bob.email, "reader")
    thief = Person(ann.port, ann.org, f"eve-{secrets.token_hex(4)}@guest.example", new_password())
    other = ann.add("reader")
    for refused in (
        redeem(stranger(server), code),
        thief.accept(code),
        thief.accept("invite-none"),
        thief.accept(""),
        other.accept(code),
        other.accept(code, "another password"),  # which would tell that there is an account
    ):
        assert (refused.status, refused.code) == (404, "INVITATION_UNKNOWN")
    assert thief.email not in users(server)
    assert bob.accept(f" {code}\n").status == 200
    assert ann.api.send("DELETE", f"{ann.base}/members?email={bob.email}").status == 204
    for again in (bob.accept(code), redeem(bob, code)):
        assert (again.status, again.code) == (404, "INVITATION_UNKNOWN")


def test_a_code_that_many_redeem_at_once(ann: Person, bob: Person) -> None:
    """If many requests redeem a code at once, one of them joins, and none gets an internal error."""
    code = ann.invite(bob.email, "reader")
    with ThreadPoolExecutor(8) as crowd:
        seen = [answer.status for answer in crowd.map(lambda _: bob.accept(code), range(8))]
    assert seen.count(200) == 1
    assert set(seen) <= {200, 404, 503}


def test_an_invitation_is_revoked(ann: Person, bob: Person) -> None:
    """By its own address, or as a member is removed; its code is worth nothing then, and a newer one replaces it."""
    for path in ("invitations", "members"):
        code = ann.invite(bob.email, "reader")
        assert ann.api.send("DELETE", f"{ann.base}/{path}?email={bob.email.upper()}").status == 204
        assert bob.accept(code).code == "INVITATION_UNKNOWN"
        gone = ann.api.send("DELETE", f"{ann.base}/{path}?email={bob.email}")
        assert gone.status == 404
    old, new = ann.invite(bob.email, "reader"), ann.invite(bob.email, "writer")
    assert bob.accept(old).code == "INVITATION_UNKNOWN"
    assert bob.accept(new).json()["role"] == "writer"


def test_codes_are_kept_hashed(server: Server, ann: Person, bob: Person) -> None:
    """No file of the data folder contains a code."""
    code = ann.invite(bob.email, "reader").encode()
    for path in (path for path in server.data.rglob("*") if path.is_file()):
        assert code not in path.read_bytes()


def test_a_pending_admin_is_no_admin(server: Server, bob: Person) -> None:
    """They do not count as a second one, have no rights, can't be given a role, and can be removed."""
    first = new_admin(server)
    code = first.invite(bob.email, "admin")
    answer = first.api.json("PATCH", f"{first.base}/members?email={first.email}", {"role": "reader"})
    assert (answer.status, answer.code) == (409, "LAST_ADMIN")
    answer = first.api.json("PATCH", f"{first.base}/members?email={bob.email}", {"role": "reader"})
    assert (answer.status, answer.code) == (404, "MEMBER_UNKNOWN")
    assert "has not joined" in answer.message
    assert first.api.get(f"{first.base}/members").json()["total"] == 1
    assert first.api.send("DELETE", f"{first.base}/members?email={bob.email}").status == 204
    assert bob.accept(code).status == 404


def test_the_admin_learns_nothing_of_accounts(server: Server, ann: Person, bob: Person) -> None:
    """10: inviting, listing and revoking answer alike for an email with an account and for one without."""
    known = stranger(server).email
    shapes = []
    for email in (known, bob.email):
        made = ann.api.json("POST", f"{ann.base}/invitations", {"email": email, "role": "reader"})
        (listed,) = (item for item in ann.api.get(f"{ann.base}/invitations").json()["items"] if item["email"] == email)
        role = ann.api.json("PATCH", f"{ann.base}/members?email={email}", {"role": "reader"})
        gone = ann.api.send("DELETE", f"{ann.base}/invitations?email={email}")
        message = role.message.replace(email, "")
        shapes.append((made.status, sorted(made.json()), sorted(listed), role.status, message, gone.status))
    assert shapes[0] == shapes[1]


def test_a_weak_password_makes_no_account_and_spends_no_code(server: Server, ann: Person, bob: Person) -> None:
    """The usual rules for passwords apply; after a refusal there is no account, and the code stays valid."""
    code = ann.invite(bob.email, "reader")
    for weak in ("short", "p" * 1025, "polly_a token, it seems"):
        refused = bob.accept(code, weak)
        assert (refused.status, refused.code) == (400, "BAD_REQUEST")
    assert bob.email not in users(server)
    assert bob.accept(code).status == 200


@pytest.mark.parametrize(
    "change",
    [
        {"email": "no email"},
        {"email": ""},
        {"email": "a@b@c"},
        {"email": "a" * 300 + "@b.example"},
        {"email": 1},
        {"role": "owner"},
        {"role": "Admin"},
        {"role": 3},
        {"password": "12345678"},
    ],
)
def test_invitations_that_are_none(ann: Person, change: dict[str, Any]) -> None:
    """400 BAD_REQUEST, and nobody is invited."""
    before = pending(ann)
    wanted = {"email": "x@acme.example", "role": "reader", **change}
    answer = ann.api.json("POST", f"{ann.base}/invitations", wanted)
    assert (answer.status, answer.code) == (400, "BAD_REQUEST")
    assert pending(ann) == before


@pytest.mark.parametrize("body", [{}, {"code": 1}, {"code": "x"}, {"code": "x", "email": "a@b.example"}, {"of": 1}])
def test_a_redemption_lacks_what_it_takes(ann: Person, body: dict[str, Any]) -> None:
    """400 without a sign-in and without email or password; 401 for an invalid token."""
    answer = Client(ann.port).json("POST", "/api/v1/invitation", body)
    assert (answer.status, answer.code) == (400, "BAD_REQUEST")
    answer = bearer(ann.port, "polly_none").json("POST", "/api/v1/invitation", {"code": "x"})
    assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
    both = {"code": "x", "email": ann.email, "password": ann.password}
    assert ann.api.json("POST", "/api/v1/invitation", both).status == 400


def test_who_may_invite(server: Server, ann: Person, bob: Person) -> None:
    """Admins invite and revoke; readers and writers see who is invited; strangers see nothing."""
    code = ann.invite(bob.email, "reader")
    for role in ("reader", "writer"):
        person = member(server, role)
        for answer in (
            person.api.json("POST", f"{ann.base}/invitations", {"email": "y@guest.example", "role": "admin"}),
            person.api.send("DELETE", f"{ann.base}/invitations?email={bob.email}"),
        ):
            assert (answer.status, answer.code) == (403, "DENIED")
        assert bob.email in pending(person)
    outside = stranger(server).api.get(f"{ann.base}/invitations")
    assert (outside.status, outside.code) == (404, "ORGANISATION_UNKNOWN")
    assert bob.accept(code).status == 200


def test_an_organisation_that_is_deleted(server: Server, bob: Person) -> None:
    """While an organisation is deleted, its codes are not valid; once it is restored, they are again."""
    org, (email, password) = server.new_org()
    code = Person(server.port, org, email, password).invite(bob.email, "reader")
    polly_server("org", "delete", "--data", str(server.data), "--org", org, "--yes")
    assert bob.accept(code).code == "INVITATION_UNKNOWN"
    polly_server("org", "restore", "--data", str(server.data), "--org", org)
    assert bob.accept(code).status == 200


def test_the_operator_adds_who_was_invited(server: Server, ann: Person, bob: Person) -> None:
    """polly-server user add makes an invited person a member, and their code ends."""
    code = ann.invite(bob.email, "reader")
    place = ("--data", str(server.data), "--org", ann.org, "--email", bob.email)
    polly_server("user", "add", *place, "--role", "writer", "--password-stdin", stdin=bob.password)
    assert bob.email not in pending(ann)
    assert bob.accept(code).code == "INVITATION_UNKNOWN"
    assert bob.create()


def test_pages_of_invitations(server: Server) -> None:
    """By email, by pages of any limit; total counts all."""
    org = new_admin(server)
    emails = sorted(f"{number}-{secrets.token_hex(3)}@guest.example" for number in range(4))
    for email in emails:
        org.invite(email, "reader")
    cursor: str | None = ""
    listed: list[str] = []
    while cursor is not None:
        page = org.api.get(f"{org.base}/invitations?limit=3&cursor={cursor}").json()
        assert page["total"] == 4
        listed += [item["email"] for item in page["items"]]
        cursor = page["next"]
    assert listed == emails


@pytest.mark.parametrize("how", ["removed", "demoted"])
def test_what_an_admin_has_invited_ends_with_their_role(server: Server, how: str) -> None:
    """Security 2: the codes of a former admin let nobody in, not even them; other invitations and members stay."""
    ann = new_admin(server)
    bob = Person(ann.port, ann.org, f"bob-{secrets.token_hex(5)}@guest.example", new_password())
    mallory, carl = ann.add("admin"), f"carl-{how}@guest.example"
    code, other, joined = mallory.invite(bob.email, "admin"), ann.invite(carl, "reader"), mallory.add("reader")
    member = f"{ann.base}/members?email={mallory.email}"
    changed = ann.api.send("DELETE", member) if how == "removed" else ann.api.json("PATCH", member, {"role": "writer"})
    assert changed.status in {200, 204}
    refused = bob.accept(code)
    assert (refused.status, refused.code) == (404, "INVITATION_UNKNOWN")
    assert bob.email not in pending(ann)
    assert Person(ann.port, ann.org, carl, new_password()).accept(other).status == 200
    assert joined.api.get(f"{ann.base}/members").status == 200
    entries = ann.api.get(f"{ann.base}/audit?event=member-uninvite").json()["items"]
    assert (entries[0]["subject"], entries[0]["detail"]) == (bob.email, f"invited by {mallory.email}")
