"""``polly members list, add, invitations, accept, set-role`` and ``remove``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.people import Server, User
from support.server import BIN

if TYPE_CHECKING:
    from collections.abc import Callable


def invite(admin: User, email: str, role: str = "writer") -> str:
    """Return the code of an invitation."""
    return str(admin.ok("members", "add", "--email", email, "--role", role, "--output", "json").json()["code"])


def test_somebody_new_is_invited_and_joins(ann: User, nobody: User, server: Server) -> None:
    """The code is shown once, with the command that redeems it; the person who redeems it is signed in afterwards."""
    org, email = ann.env["TEST_ORG"], "bob@members.example"
    done = ann.ok("members", "add", "--email", email, "--role", "writer")
    assert done.err.startswith(f"Success: {email} is invited to {org}\n")
    assert f"polly members accept --server {server.url} --email {email}" in done.err
    header, row = done.out.splitlines()
    assert header.split()[:3] == ["email", "role", "code"]
    code = row.split()[2]
    password = "a long password of bob"
    done = nobody.ok(
        *("members", "accept", "--server", server.url, "--email", email, "--code-stdin", "--password-stdin"),
        stdin=f"{code}\n{password}\n",
    )
    assert f"Success: {email} is writer of {org}\n" in done.err
    assert f"Success: Logged in to Polly as {email}\n" in done.err
    assert nobody.ok("whoami", "--output", "json").json()["organisations"][0]["role"] == "writer"
    for secret in (code, password):
        assert secret not in nobody.profiles.read_text() + done.out + done.err
    nobody.email, nobody.password = email, password
    nobody.login(server)


def test_somebody_with_an_account_joins(ann: User, server: Server) -> None:
    """For a signed-in person the code is enough, also as an argument. The sign-in does not change otherwise."""
    other, (email, password) = server.new_org()
    admin = User(ann.home, email, password, ann.env | {"XDG_CONFIG_HOME": str(ann.home / "other")})
    admin.login(server)
    token = ann.token()
    done = ann.ok("members", "accept", "--code", invite(admin, ann.email, "reader"))
    assert f"still use the organisation {ann.env['TEST_ORG']}" in done.err
    assert f"Success: {ann.email} is reader of {other}\n" in done.err
    assert ann.token() == token
    roles = {
        each["organisation"]: each["role"] for each in ann.ok("whoami", "--output", "json").json()["organisations"]
    }
    assert roles[other] == "reader"
    admin.ok("members", "remove", "--email", ann.email, "--yes")


def test_a_second_invitation_says_that_the_first_code_ended(ann: User) -> None:
    """Only if somebody is invited again, the message says that the older code does not work any more."""
    invitation = ("members", "add", "--email", "Again@members.example", "--role", "reader")
    ended = "The code that again@members.example got before does not work any more.\n"
    assert [ended in ann.ok(*invitation).err for _ in range(3)] == [False, True, True]


def test_redemptions_that_fail(ann: User, nobody: User, server: Server) -> None:
    """Each has one sentence; exit code 1 if the server refuses, 2 if something is missing; nothing is created."""
    email = "eva@members.example"
    code = invite(ann, email)
    accept = ("members", "accept", "--server", server.url)
    for arguments, stdin, exit_code, words in (
        (["--email", email, "--code-stdin", "--password-stdin"], "invite-wrong\na long password\n", 1, "not valid"),
        (["--email", email, "--code-stdin", "--password-stdin"], f"{code}\nshort\n", 2, "8 to 1024"),
        (["--email", email, "--code-stdin", "--password-stdin"], f"{code}\n", 2, "stdin is empty"),
        (["--email", email, "--code", code], "", 2, "--password-stdin is missing"),
        (["--email", email, "--password-stdin"], "", 2, "--code-stdin is missing"),
        (["--code", code, "--password-stdin"], "a long password\n", 2, "--email is missing"),
        (["--email", email, "--code", code, "--code-stdin"], "", 2, "use one"),
    ):
        done = nobody.polly(*accept, *arguments, stdin=stdin)
        assert (done.code, done.out, words in done.err) == (exit_code, "", True), (arguments, done.err)
        assert code not in done.err
    done = ann.polly("members", "accept", "--code", code)
    assert (done.code, "not valid for" in done.err, "mistyped" in done.err) == (1, True, True)
    assert "Ask the admin who invited you to run polly members add again" in done.err
    done = nobody.polly("members", "accept", "--email", email)
    missing = "--server is missing. --code-stdin is missing. It reads the code from stdin. --password-stdin is missing."
    assert (done.code, done.err) == (2, f"Error: {missing} Give it, and the password on stdin.\n")


def test_invitations_are_listed_and_revoked(ann: User, nobody: User, server: Server) -> None:
    """``members list`` shows invited people after the members; members remove revokes the code."""
    email = "finn@members.example"
    code = invite(ann, email, "admin")
    (item,) = (each for each in ann.ok("members", "invitations", "--output", "json").json() if each["email"] == email)
    assert item["role"] == "admin"
    assert email in ann.ok("members", "invitations").out
    (line,) = (line for line in ann.ok("members", "list").out.splitlines() if line.startswith(email))
    assert line.split()[1:4] == ["admin", "invited", "until"]
    (listed,) = (each for each in ann.ok("members", "list", "--output", "json").json() if each["email"] == email)
    assert (listed["status"], listed["joined_at"], listed["until"]) == ("invited", None, item["expires_at"])
    ann.ok("members", "remove", "--email", email, "--yes")
    assert email not in ann.ok("members", "list").out
    done = nobody.polly(
        *("members", "accept", "--server", server.url, "--email", email, "--code-stdin", "--password-stdin"),
        stdin=f"{code}\na long password\n",
    )
    assert (done.code, "not valid" in done.err) == (1, True)


def test_members_are_listed_changed_and_removed(person: Callable[..., User]) -> None:
    """A new role and a removal take effect on the next request."""
    ann, bob = person(), person("reader")
    assert bob.polly("dockers", "create", "--name", "one", "--description", "x").code == 1
    ann.ok("members", "set-role", "--email", bob.email, "--role", "writer")
    bob.ok("dockers", "create", "--name", "one", "--description", "x")
    members = ann.ok("members", "list", "--output", "json").json()
    assert {(each["email"], each["role"]) for each in members} == {(ann.email, "admin"), (bob.email, "writer")}
    assert [line.split()[:2] for line in ann.ok("members", "list").out.splitlines()[1:]] == [
        [each["email"], each["role"]] for each in members
    ]
    ann.ok("members", "remove", "--email", bob.email, "--yes")
    done = bob.polly("dockers", "list")
    assert (done.code, "not a member of any organisation" in done.err) == (1, True)


def test_refusals_reach_the_person(person: Callable[..., User]) -> None:
    """The last admin, a reader without the right and an unknown member: exit code 1 and a sentence."""
    ann, bob = person(), person("reader")
    for user, arguments in (
        (ann, ["remove", "--email", ann.email, "--yes"]),
        (ann, ["set-role", "--email", ann.email, "--role", "reader"]),
        (ann, ["remove", "--email", "none@members.example", "--yes"]),
        (ann, ["add", "--email", bob.email, "--role", "reader"]),
        (bob, ["add", "--email", "x@members.example", "--role", "reader"]),
    ):
        done = user.polly("members", *arguments)
        assert (done.code, done.out) == (1, "")
        assert done.err.startswith("Error: ")


def test_what_is_missing_is_named(ann: User) -> None:
    """On a pipe the command asks nothing, and names what is missing."""
    for arguments, missing in (
        (["add", "--role", "reader"], "--email is missing."),
        (["add", "--email", "x@members.example"], "--role is missing. It is reader, writer or admin."),
        (["add"], "--email is missing. --role is missing. It is reader, writer or admin."),
        (["set-role"], "--email is missing. --role is missing. It is reader, writer or admin."),
        (["remove"], "--email is missing. --yes is missing. It confirms the command without a question."),
        (["remove", "--yes"], "--email is missing."),
    ):
        done = ann.polly("members", *arguments)
        assert (done.code, done.err) == (2, f"Error: {missing}\n")


def test_a_removal_is_confirmed(person: Callable[..., User]) -> None:
    """On a pipe nobody is removed without --yes (exit code 2); on a terminal the answer decides."""
    ann, bob = person(), person("reader")
    done = ann.polly("members", "remove", bob.email)
    assert (done.code, "add --yes" in done.err) == (2, True)
    for answer, words, code in (("n", "Nobody was removed.", 1), ("y", "is not a member", 0)):
        bob.ok("dockers", "list")
        terminal = ann.terminal("members", "remove", bob.email)
        terminal.see("Remove them?")
        terminal.type(answer)
        assert terminal.end() == code
        assert words in terminal.text()
    assert bob.polly("dockers", "list").code == 1


def test_an_invitation_is_revoked_in_words_of_its_own(person: Callable[..., User]) -> None:
    """The question, the explanation and the success message are about the invitation, not about a member."""
    ann, email = person(), "invited@members.example"
    for answer, words, code in (("n", "Nobody was removed.", 1), ("y", "is revoked", 0)):
        ann.ok("members", "add", email, "--role", "reader")
        terminal = ann.terminal("members", "remove", email)
        terminal.see("Revoke the invitation?")
        assert "has not joined" in terminal.text()
        terminal.type(answer)
        assert terminal.end() == code
        assert words in terminal.text()
    ann.ok("members", "add", email, "--role", "reader")
    assert "The invitation of" in ann.ok("members", "remove", email.upper(), "--yes").err
    for command in ("remove", "set-role"):
        terminal = ann.terminal("members", command, "nosuch@members.example", columns=120)
        assert terminal.end() == 1
        assert "nosuch@members.example is not a member of" in terminal.text()


def test_what_is_no_email_address_is_refused_before_a_question(ann: User) -> None:
    """Neither the role is asked for, nor the server."""
    done = ann.polly("members", "add", "bob", "--role", "reader")
    assert (done.code, done.err) == (2, "Error: --email 'bob' is not an email address.\n")


def test_a_code_that_is_missing_on_a_pipe_names_the_way_that_nobody_sees(nobody: User, server: Server) -> None:
    """--code-stdin, not --code, which is in the list of processes."""
    done = nobody.polly("members", "accept", "--server", server.url, "--email", "x@members.example")
    assert (done.code, "--code-stdin is missing. It reads the code from stdin." in done.err) == (2, True)
    assert "--password-stdin is missing. Give it, and the password on stdin." in done.err


def test_accepting_makes_the_profile_that_is_named(ann: User, nobody: User, server: Server) -> None:
    """If --profile or POLLY_PROFILE names no existing profile, the new profile gets that name."""
    for email, options, env in (
        ("new-1@members.example", ["--profile", "lab"], {}),
        ("new-2@members.example", [], {"POLLY_PROFILE": "other"}),
    ):
        made = ann.ok("members", "add", email, "--role", "reader", "--output", "json").json()
        arguments = ["members", "accept", "--server", server.url, "--email", email, "--code-stdin", "--password-stdin"]
        nobody.ok(*arguments, *options, stdin=f"{made['code']}\na long password of theirs\n", **env)
    names = {each["name"] for each in nobody.ok("profiles", "list", "--output", "json").json()}
    assert names == {"lab", "other"}


def test_polly_server_names_its_own_commands(ann: User, server: Server) -> None:
    """polly-server names commands of polly-server, because nobody is signed in on that machine."""
    org = ann.env["TEST_ORG"]
    invite(ann, "new@members.example")
    place = ("--data", str(server.data), "--org", org)
    for command, said in (
        (("add", ann.email, "--role", "admin"), "polly-server user set-role --data"),
        (("set-role", "none@members.example", "--role", "admin"), "polly-server user list --data"),
        (("remove", "none@members.example"), "polly-server user list --data"),
        (("set-role", "new@members.example", "--role", "admin"), "polly-server user add --data"),
    ):
        done = ann.run(str(BIN / "polly-server"), "user", *command, *place)
        assert (done.code, done.out) == (1, "")
        assert said in done.err
        assert "polly members" not in done.err
    done = ann.polly("members", "set-role", "none@members.example", "--role", "admin")
    assert "polly members list" in done.err


def test_a_code_given_as_an_email(nobody: User, server: Server) -> None:
    """The code is not shown, and the message says where codes belong."""
    done = nobody.polly("members", "accept", "invite-q5zt4w2m7yk3", "--server", server.url)
    assert (done.code, "q5zt4w2m7yk3" in done.err, "--code-stdin" in done.err) == (2, False, True)
