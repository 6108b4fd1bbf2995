"""docs/api.md: access tokens, the signed-in user and members; and what holds for every address."""

from __future__ import annotations

import contextlib
import datetime as dt
import secrets
import sqlite3
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import pytest

from support.wire_client import Client, Person, basic, bearer, member, new_admin, stranger

if TYPE_CHECKING:
    from support.server import Server


@pytest.fixture
def bob(ann: Person) -> Person:
    """A new writer."""
    return ann.add("writer")


def test_what_the_server_is(server: Server) -> None:
    """GET /api/v1 for anyone."""
    answer = Client(server.port).get("/api/v1")
    assert answer.status == 200
    body = answer.json()
    assert body.pop("version")
    assert body.pop("public_repositories") == "allow"
    assert body == {"product": "polly-docker-repository", "registry": server.registry, "url": server.url}


def test_a_token_by_password(bob: Person) -> None:
    """POST /api/v1/tokens: 201 with the secret, which no list shows again, and the expiry that was asked for."""
    wanted = {"scope": "full", "expires_in": 600, "label": "laptop"}
    answer = bob.by_password.json("POST", "/api/v1/tokens", wanted)
    made = answer.json()
    assert (answer.status, answer.header("Cache-Control")) == (201, "no-store")
    assert made["token"].startswith("polly_")
    assert (made["scope"], made["email"]) == ("full", bob.email)
    left = dt.datetime.fromisoformat(made["expires_at"]) - dt.datetime.now(dt.UTC)
    assert dt.timedelta(seconds=500) < left <= dt.timedelta(seconds=601)
    (item,) = bearer(bob.port, made["token"]).get("/api/v1/tokens").json()["items"]
    assert (item["id"], item["label"], item["scope"], item["current"]) == (made["id"], "laptop", "full", True)
    assert made["token"] not in str(item)


def test_a_token_by_a_full_token(bob: Person) -> None:
    """A full token makes tokens for the registry only, and they expire no later than it does."""
    full = bob.access_token("full", expires_in=300)
    client = bearer(bob.port, full)
    made = client.json("POST", "/api/v1/tokens", {"expires_in": 86_400}).json()
    assert made["scope"] == "registry"
    assert dt.datetime.fromisoformat(made["expires_at"]) - dt.datetime.now(dt.UTC) <= dt.timedelta(seconds=301)
    answer = client.json("POST", "/api/v1/tokens", {"scope": "full"})
    assert (answer.status, answer.code) == (400, "BAD_REQUEST")
    assert bearer(bob.port, made["token"]).json("POST", "/api/v1/tokens", {}).status == 401
    assert basic(bob.port, "POLLY", made["token"]).json("POST", "/api/v1/tokens", {}).status == 401


@pytest.mark.parametrize(
    "body",
    [
        {"expires_in": 59},
        {"expires_in": 31_536_001},
        {"expires_in": -1},
        {"expires_in": "600"},
        {"expires_in": True},
        {"expires_in": 10**30},
        {"scope": "admin"},
        {"label": "l" * 201},
        {"label": "a\nb"},
        {"label": 1},
        {"of_the_future": 1},
    ],
)
def test_tokens_that_are_none(bob: Person, body: dict[str, Any]) -> None:
    """400 BAD_REQUEST, and no token is made."""
    answer = bob.by_password.json("POST", "/api/v1/tokens", body)
    assert (answer.status, answer.code) == (400, "BAD_REQUEST")
    assert len(bob.api.get("/api/v1/tokens").json()["items"]) == 1


def test_tokens_are_revoked(bob: Person) -> None:
    """DELETE /api/v1/tokens/{id}: 204, and tokens made with it are revoked too; an unknown id is an error."""
    parent = bearer(bob.port, bob.access_token("full"))
    child = parent.json("POST", "/api/v1/tokens", {}).json()["token"]
    parent_id = parent.get("/api/v1/me").json()["token"]["id"]
    assert basic(bob.port, "POLLY", child).get("/token").status == 200
    assert bob.api.send("DELETE", f"/api/v1/tokens/{parent_id}").status == 204
    assert parent.get("/api/v1/me").status == 401
    assert basic(bob.port, "POLLY", child).get("/token").status == 401
    for token_id in (parent_id, "absent", "%00", "x" * 500):
        answer = bob.api.send("DELETE", f"/api/v1/tokens/{token_id}")
        assert answer.status in {400, 404}
        assert answer.code in {"TOKEN_UNKNOWN", "NAME_INVALID"}
    assert bob.api.get("/api/v1/me").status == 200


def test_a_token_takes_the_place_of_another(bob: Person, ann: Person) -> None:
    """``replaces`` revokes a token of the same user; tokens made with that one stay until the new one is revoked."""
    old = bob.access_token("full", expires_in=3600)
    child = bearer(bob.port, old).json("POST", "/api/v1/tokens", {"expires_in": 3000}).json()["token"]
    wanted = {"scope": "full", "expires_in": 600, "replaces": old}
    new = bob.by_password.json("POST", "/api/v1/tokens", wanted).json()
    assert bearer(bob.port, old).get("/api/v1/me").status == 401
    assert basic(bob.port, "POLLY", child).get("/token").status == 200
    client = bearer(bob.port, new["token"])
    (item,) = (item for item in client.get("/api/v1/tokens").json()["items"] if item["parent"] is not None)
    assert (item["parent"], item["expires_at"]) == (new["id"], new["expires_at"])
    assert client.send("DELETE", "/api/v1/tokens/current").status == 204
    assert basic(bob.port, "POLLY", child).get("/token").status == 401
    for other in (ann.secret, old, "polly_never", "half \udcff", ""):
        wanted = {"scope": "full", "expires_in": 600, "replaces": other}
        assert bob.by_password.json("POST", "/api/v1/tokens", wanted).status == (400 if "\udcff" in other else 201)
    assert ann.api.get("/api/v1/me").status == 200
    answer = bob.api.json("POST", "/api/v1/tokens", {"replaces": bob.secret})
    assert (answer.status, answer.code) == (400, "BAD_REQUEST")
    assert bob.api.get("/api/v1/me").status == 200


def test_the_current_token_is_revoked(bob: Person) -> None:
    """DELETE /api/v1/tokens/current ends the token of the request and no other."""
    other = bearer(bob.port, bob.access_token("full"))
    assert bob.api.send("DELETE", "/api/v1/tokens/current").status == 204
    assert bob.api.get("/api/v1/me").status == 401
    assert other.get("/api/v1/me").status == 200


def test_pages_of_tokens(bob: Person, server: Server) -> None:
    """Pages list each token once, newest first; a page has at most ``limit`` tokens, 100 by default."""
    give_tokens(server, bob, 250)
    wanted = [item["id"] for item in bob.api.get("/api/v1/tokens?limit=1000").json()["items"]]
    assert len(set(wanted)) == 251
    for limit in (1, 99, 250, 251):
        found: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            page = bob.api.get(f"/api/v1/tokens?limit={limit}&cursor={cursor}").json()
            assert len(page["items"]) <= limit
            found += [item["id"] for item in page["items"]]
            cursor = page["next"]
        assert found == wanted
    assert len(bob.api.get("/api/v1/tokens").json()["items"]) == 100
    for query in ("limit=0", "limit=1001", "cursor=x", "cursor=MQ", "cursor=YQBi"):
        assert bob.api.get(f"/api/v1/tokens?{query}").status == 400, query


def test_so_many_tokens_and_no_more(bob: Person, ann: Person, server: Server) -> None:
    """409 TOKEN_LIMIT names the commands. Expired tokens do not count, replacing one works, others are not affected."""
    give_tokens(server, bob, 999, expired=1)
    assert bob.by_password.json("POST", "/api/v1/tokens", {}).status == 201
    assert len(bob.api.get("/api/v1/tokens?limit=1000").json()["items"]) == 1000
    for client in (bob.by_password, bob.api):
        answer = client.json("POST", "/api/v1/tokens", {})
        assert (answer.status, answer.code) == (409, "TOKEN_LIMIT")
        assert "polly tokens revoke" in answer.message
    for replaced in (ann.secret, "polly_never"):
        assert bob.by_password.json("POST", "/api/v1/tokens", {"replaces": replaced}).status == 409
    assert bob.by_password.json("POST", "/api/v1/tokens", {"scope": "full", "replaces": bob.secret}).status == 201
    assert ann.by_password.json("POST", "/api/v1/tokens", {}).status == 201


def give_tokens(server: Server, bob: Person, count: int, *, expired: int = 0) -> None:
    """Add so many access tokens of the same time to that of the person; some of them have just expired."""
    assert bob.secret
    now = time.time_ns() // 1000
    own = "SELECT ?, id, 'registry', ?, '', ?, ? FROM users WHERE email = ?"
    rows = [
        (secrets.token_hex(8), secrets.token_bytes(32), now, now + (-1 if number < expired else 10**9), bob.email)
        for number in range(count)
    ]
    with contextlib.closing(sqlite3.connect(server.data / "polly.db", timeout=30)) as connection, connection:
        into = "INSERT INTO access_tokens (id, user_id, scope, secret_hash, label, created_at, expires_at)"
        connection.executemany(f"{into} {own}", rows)


def test_a_token_of_another_user(ann: Person, bob: Person) -> None:
    """Revoking a token of another user is 404 TOKEN_UNKNOWN, and the token stays valid."""
    token_id = ann.api.get("/api/v1/me").json()["token"]["id"]
    answer = bob.api.send("DELETE", f"/api/v1/tokens/{token_id}")
    assert (answer.status, answer.code) == (404, "TOKEN_UNKNOWN")
    assert ann.api.get("/api/v1/me").status == 200


def test_me(server: Server, bob: Person) -> None:
    """GET /api/v1/me: email, every organisation with the role and since when, and the token of the request."""
    other = stranger(server)
    accepted = bob.api.json("POST", "/api/v1/invitation", {"code": other.invite(bob.email, "reader")})
    assert accepted.status == 200
    body = bob.api.get("/api/v1/me").json()
    assert body["email"] == bob.email
    assert [(each["organisation"], each["role"]) for each in body["organisations"]] == sorted(
        [("acme", "writer"), (other.org, "reader")]
    )
    joined = {each["organisation"]: each["joined_at"] for each in body["organisations"]}
    assert joined["acme"] < joined[other.org]
    assert (body["token"]["scope"], body["token"]["current"]) == ("full", True)
    assert bob.api.get("/api/v1/me").json()["token"]["last_used_at"] is not None


def test_a_password_is_changed(bob: Person) -> None:
    """PUT /api/v1/me/password: 204; from then on only the new password is right."""
    new = secrets.token_urlsafe(10)
    answer = bob.by_password.json("PUT", "/api/v1/me/password", {"password": new})
    assert (answer.status, answer.body) == (204, b"")
    assert bob.by_password.get("/token").status == 401
    assert basic(bob.port, bob.email, new).get("/token").status == 200


@pytest.mark.parametrize(
    "body", [{"password": "short"}, {"password": "p" * 1025}, {"password": ""}, {}, {"password": 12345678}]
)
def test_passwords_that_are_none(bob: Person, body: dict[str, Any]) -> None:
    """400 BAD_REQUEST, and the password stays."""
    answer = bob.by_password.json("PUT", "/api/v1/me/password", body)
    assert (answer.status, answer.code) == (400, "BAD_REQUEST")
    assert bob.by_password.get("/token").status == 200


def test_a_password_that_takes_long_to_normalise(bob: Person) -> None:
    """60,000 bytes of accents in the wrong order are refused at once: sorting them would block a process."""
    body = '{"password": "a' + "\u0301\u0316" * 15_000 + '"}'
    answer = bob.by_password.send("PUT", "/api/v1/me/password", body.encode(), {"Content-Type": "application/json"})
    assert (answer.status, answer.code) == (400, "BAD_REQUEST")
    assert bob.by_password.get("/token").status == 200


def test_a_password_takes_the_password(bob: Person) -> None:
    """An access token cannot change a password, whichever header carries it."""
    for client in (bob.api, basic(bob.port, bob.email, bob.secret), Client(bob.port), basic(bob.port, bob.email, "no")):
        answer = client.json("PUT", "/api/v1/me/password", {"password": "stolen by a token"})
        assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
    assert bob.by_password.get("/token").status == 200


def test_members_come_and_go(ann: Person) -> None:
    """Invited, joined, listed, changed and removed by an admin."""
    new = Person(ann.port, ann.org, f"New.{secrets.token_hex(4)}@Acme.Example", "a good password")
    assert new.accept(ann.invite(new.email, "reader")).json() == {
        "organisation": ann.org,
        "role": "reader",
        "email": new.email.lower(),
    }
    assert new.api.get(f"{ann.base}/repositories").status == 200
    again = ann.api.json("POST", f"{ann.base}/invitations", {"email": new.email, "role": "writer"})
    assert (again.status, again.code) == (409, "MEMBER_EXISTS")
    path = f"{ann.base}/members?email={quote(new.email)}"
    changed = ann.api.json("PATCH", path, {"role": "writer"})
    assert (changed.status, changed.json()["role"]) == (200, "writer")
    assert new.create()
    gone = ann.api.send("DELETE", path)
    assert (gone.status, gone.body) == (204, b"")
    assert new.api.get(f"{ann.base}/repositories").code == "ORGANISATION_UNKNOWN"
    for answer in (ann.api.send("DELETE", path), ann.api.json("PATCH", path, {"role": "reader"})):
        assert (answer.status, answer.code) == (404, "MEMBER_UNKNOWN")


@pytest.mark.parametrize("role", ["reader", "writer"])
def test_members_are_for_admins(server: Server, ann: Person, role: str) -> None:
    """403 DENIED for every change by a reader or a writer; all members see the list."""
    person, other = member(server, role), ann.add("reader")
    path = f"{ann.base}/members"
    wanted = {"email": "x@acme.example", "role": "admin"}
    for answer in (
        person.api.json("POST", f"{ann.base}/invitations", wanted),
        person.api.send("DELETE", f"{ann.base}/invitations?email=x@acme.example"),
        person.api.json("PATCH", f"{path}?email={person.email}", {"role": "admin"}),
        person.api.json("PATCH", f"{path}?email={other.email}", {"role": "reader"}),
        person.api.json("PATCH", f"{path}?email=absent@acme.example", {"role": "reader"}),
        person.api.send("DELETE", f"{path}?email={other.email}"),
        person.api.send("DELETE", f"{path}?email={ann.email}"),
    ):
        assert (answer.status, answer.code) == (403, "DENIED")
    roles = {item["email"]: item["role"] for item in person.api.get(f"{path}?limit=1000").json()["items"]}
    assert (roles[person.email], roles[other.email], roles[ann.email]) == (role, "reader", "admin")
    assert "x@acme.example" not in roles


def test_the_last_admin_stays(server: Server) -> None:
    """409 LAST_ADMIN for removing the only admin or lowering their role; with a second admin both work."""
    first = new_admin(server)
    path = f"{first.base}/members?email={first.email}"
    for answer in (
        first.api.send("DELETE", path),
        first.api.json("PATCH", path, {"role": "writer"}),
    ):
        assert (answer.status, answer.code) == (409, "LAST_ADMIN")
    assert first.api.json("PATCH", path, {"role": "admin"}).status == 200
    second = first.add("admin")
    assert second.api.json("PATCH", path, {"role": "writer"}).status == 200
    assert first.api.json("PATCH", path, {"role": "admin"}).code == "DENIED"
    assert second.api.json("PATCH", path, {"role": "admin"}).status == 200
    assert first.api.send("DELETE", f"{first.base}/members?email={second.email}").status == 204


def test_pages_of_members(server: Server) -> None:
    """Members by email, in both orders, by pages of any limit; total counts all."""
    org = stranger(server)
    for _ in range(4):
        org.add("reader")
    emails: list[str] = [item["email"] for item in org.api.get(f"{org.base}/members?limit=1000").json()["items"]]
    assert emails == sorted(emails)
    assert org.email in emails
    for limit in (1, 2, len(emails)):
        for order, wanted in (("oldest", emails), ("newest", emails[::-1])):
            found: list[str] = []
            cursor: str | None = ""
            while cursor is not None:
                query = urlencode({"limit": limit, "order": order, "cursor": cursor})
                page = org.api.get(f"{org.base}/members?{query}").json()
                assert page["total"] == len(emails)
                assert page["next"] != cursor, "the pages go round in a circle"
                found += [item["email"] for item in page["items"]]
                cursor = page["next"]
            assert found == wanted


ADDRESSES = [
    ("POST", "/api/v1/tokens"),
    ("GET", "/api/v1/tokens"),
    ("DELETE", "/api/v1/tokens/current"),
    ("GET", "/api/v1/me"),
    ("PUT", "/api/v1/me/password"),
    ("GET", "/api/v1/organisations/acme/repositories"),
    ("POST", "/api/v1/organisations/acme/repositories"),
    ("GET", "/api/v1/organisations/acme/repository?name=x"),
    ("PATCH", "/api/v1/organisations/acme/repository?name=x"),
    ("DELETE", "/api/v1/organisations/acme/repository?name=x"),
    ("GET", "/api/v1/organisations/acme/trash"),
    ("POST", "/api/v1/organisations/acme/trash"),
    ("GET", "/api/v1/organisations/acme/commits?repository=x"),
    ("GET", "/api/v1/organisations/acme/members"),
    ("GET", "/api/v1/organisations/acme/invitations"),
    ("POST", "/api/v1/organisations/acme/invitations"),
    ("DELETE", "/api/v1/organisations/acme/invitations?email=x"),
    ("PATCH", "/api/v1/organisations/acme/members?email=x"),
    ("DELETE", "/api/v1/organisations/acme/members?email=x"),
]


BASIC = 'Basic realm="polly", charset="UTF-8"'
SCHEMES = {
    ("PUT", "/api/v1/me/password"): BASIC,
    ("POST", "/api/v1/tokens"): f'{BASIC}, Bearer realm="polly"',
}
"""How one signs in where that is not by an access token alone."""


@pytest.mark.parametrize("path", [*(path for method, path in ADDRESSES if method == "GET"), "/api/v1/openapi.json"])
def test_head_of_every_address(ann: Person, path: str) -> None:
    """HEAD answers as GET does, without the body (RFC 9110, 9.3.2)."""
    for client in (ann.api, Client(ann.port)):
        whole, head = client.get(path), client.send("HEAD", path)
        assert (head.status, head.body) == (whole.status, b"")
        assert head.header("Content-Type") == whole.header("Content-Type")
        assert abs(int(head.header("Content-Length")) - len(whole.body)) < 50  # a time may have changed


def test_the_challenge_leads_in(ann: Person) -> None:
    """A client that signs in as the 401 response says gets in."""
    assert ann.api.get("/api/v1/me").status == 200
    made = ann.by_password.json("POST", "/api/v1/tokens", {"scope": "full", "expires_in": 60})
    assert made.status == 201
    assert bearer(ann.port, made.json()["token"]).json("POST", "/api/v1/tokens", {"expires_in": 60}).status == 201


@pytest.mark.parametrize(("method", "path"), ADDRESSES)
def test_every_address_takes_a_token(server: Server, ann: Person, method: str, path: str) -> None:
    """401 UNAUTHORIZED without a token, with a wrong one, and with one for the registry only."""
    for client in (
        Client(server.port),
        bearer(server.port, "polly_wrong"),
        bearer(server.port, ann.registry_token()),
        bearer(server.port, ann.access_token("registry")),
        Client(server.port, "Digest x"),
        basic(server.port, ann.email, "wrong password"),
    ):
        answer = client.json(method, path, {}) if method in {"POST", "PUT", "PATCH"} else client.send(method, path)
        assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
        assert answer.header("WWW-Authenticate") == SCHEMES.get((method, path), 'Bearer realm="polly"')
    assert ann.by_password.get("/token").status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api", 404),
        ("GET", "/api/", 404),
        ("GET", "/api/v2", 404),
        ("GET", "/api/v1/nothing", 404),
        ("GET", "/api/v1/organisations", 404),
        ("GET", "/api/v1/organisations/acme", 404),
        ("GET", "/api/v1/organisations/acme/nothing", 404),
        ("GET", "/api/v1/organisations/acme/members/x", 404),
        ("DELETE", "/api/v1", 405),
        ("PUT", "/api/v1/tokens", 405),
        ("GET", "/api/v1/tokens/current", 405),
        ("POST", "/api/v1/me", 405),
        ("OPTIONS", "/api/v1/me", 405),
        ("DELETE", "/api/v1/organisations/acme/repositories", 405),
        ("PUT", "/api/v1/organisations/acme/repository", 405),
        ("POST", "/api/v1/organisations/acme/commits", 405),
        ("POST", "/api/v1/organisations/acme/members", 405),
        ("GET", "/api/v1/invitation", 405),
    ],
)
def test_other_addresses_and_methods(ann: Person, method: str, path: str, status: int) -> None:
    """404 NOT_FOUND for an unknown path, 405 UNSUPPORTED for a method that a path does not have."""
    answer = ann.api.send(method, path)
    assert (answer.status, answer.code) == (status, {404: "NOT_FOUND", 405: "UNSUPPORTED"}[status])
    assert answer.headers["Access-Control-Allow-Origin"] is None
    if status == 405:  # "MUST generate an Allow header field"
        allowed = answer.header("Allow").split(", ")
        assert method not in allowed
        assert ("GET" in allowed) == ("HEAD" in allowed)
        for other in allowed:
            assert Client(ann.port).json(other, path, {}).status != 405
