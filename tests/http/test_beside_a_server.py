"""polly-server's commands while a server runs: changes take effect on the next request."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from support.server import BIN, new_password, polly_server
from support.wire_client import Person, Repo, admin, basic, bearer, image, new_admin

if TYPE_CHECKING:
    from support.server import Server


@pytest.fixture
def bob(server: Server) -> Person:
    """A new writer, signed in."""
    return admin(server).add("writer")


@pytest.fixture
def repo(server: Server) -> Repo:
    """A repository that holds an image."""
    made = admin(server).new_repo()
    made.push(image(), "v1")
    return made


def user(server: Server, command: str, email: str, *more: str, stdin: str = "") -> str:
    """Run ``polly-server user COMMAND``."""
    return polly_server("user", command, "--data", str(server.data), "--email", email, *more, stdin=stdin)


def test_a_role(server: Server, bob: Person, repo: Repo) -> None:
    """set-role: once a writer becomes a reader, their token cannot push any more."""
    there = bob.at(repo.name)
    assert there.send("POST", repo.path("blobs/uploads/")).status == 202
    assert "is reader in acme" in user(server, "set-role", bob.email.upper(), "--org", "acme", "--role", "reader")
    assert there.send("POST", repo.path("blobs/uploads/")).status == 401
    assert there.manifest("v1").status == 200


def test_a_removal(server: Server, bob: Person, repo: Repo) -> None:
    """remove: the registry and /api/v1 refuse the user from then on, and what they pushed stays."""
    there = bob.at(repo.name)
    pushed = there.push(image(), "of-bob")
    assert "is not a member" in user(server, "remove", bob.email, "--org", "acme", "--yes")
    assert there.manifest("of-bob").status == 401
    assert bob.api.get(f"{bob.base}/repositories").status == 404
    assert repo.manifest("of-bob").header("Docker-Content-Digest") == pushed
    newest = admin(server).commits(repo.name.partition("/")[2])["items"][0]
    assert (newest["commit"], newest["pushed_by"]) == (pushed, bob.email)


def test_a_password(server: Server, bob: Person, repo: Repo) -> None:
    """reset-password: all sign-ins end, the new password works at once, and failed attempts no longer count."""
    there = bob.at(repo.name)
    user(server, "reset-password", bob.email, "--password-stdin", stdin="the next password\nand more\n")
    assert there.manifest("v1").status == 401
    assert bob.api.get("/api/v1/me").status == 401
    assert bob.by_password.get("/token").status == 401
    assert basic(server.port, bob.email, "the next password").get("/token").status == 200


def test_a_user_who_is_known(server: Server, bob: Person) -> None:
    """add: with --keep-password, an existing account joins another organisation and keeps its password."""
    org, _ = server.new_org()
    said = user(server, "add", bob.email, "--org", org, "--role", "admin", "--keep-password")
    assert "keeps its password" in said
    assert bob.by_password.get("/token").status == 200
    assert {item["organisation"] for item in bob.api.get("/api/v1/me").json()["organisations"]} == {"acme", org}


@pytest.fixture
def eve(server: Server) -> Person:
    """The admin of another organisation."""
    return new_admin(server)


@pytest.fixture
def taken(eve: Person) -> Person:
    """An account with carl's email that eve made by an invitation of her own; she chose the password."""
    return eve.add("reader")


def add(server: Server, email: str, *more: str, stdin: str = "", code: int = 0) -> str:
    """Run ``polly-server user add`` for an admin of acme; what it prints, or its error."""
    place = ("--data", str(server.data), "--email", email, "--org", "acme", "--role", "admin")
    command = [str(BIN / "polly-server"), "user", "add", *place, *more]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == code, done
    return done.stderr if code else done.stdout


def roles(person: Person) -> dict[str, str]:
    """Sign in with the password; return the account's organisations and roles."""
    answer = bearer(person.port, person.access_token()).get("/api/v1/me")
    return {item["organisation"]: item["role"] for item in answer.json()["organisations"]}


def test_a_role_is_not_given_to_an_account_that_somebody_else_made(server: Server, eve: Person, taken: Person) -> None:
    """Security 21: add is refused, with a password or without, and says where the account is and what to do."""
    for more, stdin in ((("--password-stdin",), new_password()), ((), "")):
        said = add(server, taken.email, *more, stdin=stdin, code=1)
        assert f"already has an account, created on {datetime.now(UTC):%Y-%m-%d}" in said
        assert f"reader in {eve.org}" in said
        for option in ("--keep-password", "--reset-password"):
            typed = f"--data {server.data} {taken.email} --org acme --role admin {option}"
            assert f"polly-server user add {typed}" in said
    assert roles(taken) == {eve.org: "reader"}
    for account in (eve, taken):
        assert account.api.get("/api/v1/organisations/acme/members").status == 404
    init = [str(BIN / "polly-server"), "init", "--data", str(server.data), "--org", "carls", "--email", taken.email]
    done = subprocess.run(
        [*init, "--password-stdin"], input=new_password(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, "already has an account" in done.stderr) == (1, True)
    assert "carls" not in polly_server("org", "list", "--data", str(server.data))
    place = f"--data {server.data}"
    user_add = f"polly-server user add {place} {taken.email} --org carls --role admin"
    for option in ("--keep-password", "--reset-password"):
        assert f"polly-server org create {place} carls && {user_add} {option}" in done.stderr


def test_a_role_and_a_new_password(server: Server, eve: Person, taken: Person) -> None:
    """Security 21: with --reset-password, all sign-ins and tokens of the person who made the account end at once."""
    push = Person(taken.port, eve.org, taken.email, taken.password).registry_token("repository:acme/x:pull")
    session = taken.api
    own = new_password()
    assert "new password" in add(server, taken.email, "--reset-password", "--password-stdin", stdin=own)
    assert taken.by_password.get("/token").status == 401
    assert session.get("/api/v1/me").status == 401
    assert bearer(taken.port, push).get("/v2/").status == 401
    carl = Person(taken.port, "acme", taken.email, own)
    assert roles(carl) == {"acme": "admin", eve.org: "reader"}
    events = [item["event"] for item in carl.api.get(f"{carl.base}/audit").json()["items"]]
    assert "password-change" in events


def test_options_that_do_not_fit(server: Server, bob: Person) -> None:
    """--keep-password excludes options that set a password, and is an error if the account does not exist."""
    for more in (("--password-stdin",), ("--reset-password",)):
        assert "--keep-password" in add(server, bob.email, "--keep-password", *more, stdin=new_password(), code=2)
    assert "no account" in add(server, "nobody@guest.example", "--keep-password", code=1)


def test_the_invited_person_whose_email_is_taken(server: Server, eve: Person, taken: Person) -> None:
    """Security 21: they learn what to do, the admin learns nothing, and after a reset the same code works."""
    ann = admin(server)
    code, session = ann.invite(taken.email, "reader"), taken.api
    dora = Person(taken.port, "acme", taken.email, new_password())
    refused = dora.accept(code)
    assert refused.status == 401
    for part in ("already has an account", "If you did not create it", "user reset-password", "code stays valid"):
        assert part in refused.message
    assert eve.org not in refused.message
    user(server, "reset-password", dora.email, "--password-stdin", stdin=dora.password)
    assert session.get("/api/v1/me").status == 401
    assert dora.accept(code).status == 200
    assert roles(dora) == {"acme": "reader", eve.org: "reader"}
