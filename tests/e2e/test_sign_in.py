"""How Docker gets its token, and that nobody else sees it."""

from __future__ import annotations

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from .images import build, content_of, new_content

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .conftest import People
    from .people import Person

SECRET = re.compile(r"polly_[A-Za-z0-9_-]{16,}")


@pytest.mark.parametrize(
    "command",
    [
        'eval "$(polly dockers login)"',
        'login=$(polly dockers login) && printf "%s\\n" "$login" > login.sh && sh login.sh',
        "polly dockers login --exec",
        "polly dockers login | sh",
    ],
)
def test_every_way_to_run_the_printed_login_signs_in(wanda: Person, command: str) -> None:
    """With eval, a file, a pipe or --exec, Docker prints Login Succeeded, and a push works."""
    assert "Login Succeeded" in wanda.ok("sh", "-c", command)
    reference = wanda.reference(wanda.create())
    build(wanda, new_content(), reference)
    wanda.ok("docker", "push", reference)


def test_the_printed_logout_signs_out(wanda: Person) -> None:
    """It works with eval, like the login."""
    wanda.docker_login()
    wanda.ok("sh", "-c", 'eval "$(polly dockers logout)"')
    assert wanda.server.registry not in (wanda.home / ".docker/config.json").read_text()
    assert "polly login --server" in wanda.refused("docker", "pull", wanda.reference("any"))


@pytest.mark.parametrize("by_token", [False, True], ids=["password", "token"])
def test_twenty_jobs_behind_one_address_sign_in_at_once(wanda: Person, by_token: bool) -> None:  # noqa: FBT001
    """With one account's right password, or an access token, every docker login succeeds, however many come at once."""
    user, secret = ("POLLY", wanda.token()) if by_token else (wanda.email, wanda.password)

    def job(number: int) -> str:
        command = ("docker", "--config", str(wanda.home / f"job-{number}"), "login", "--username", user)
        return wanda.ok(*command, "--password-stdin", wanda.server.registry, stdin=secret)

    with ThreadPoolExecutor(20) as jobs:
        for said in jobs.map(job, range(20)):
            assert "Login Succeeded" in said


def arguments(person: Person, *command: str, stdin: str = "") -> list[str]:
    """Every program that a command starts, with its arguments, as the kernel saw them."""
    assert shutil.which("strace"), "strace is missing: apt-get install strace"
    trace = person.home / "trace"
    person.ok(
        *("strace", "--follow-forks", "--trace=execve", "--string-limit=10000", f"--output={trace}", *command),
        stdin=stdin,
    )
    return [line for line in trace.read_text().splitlines() if "execve(" in line]


def assert_hidden(secrets: Iterable[str], lines: list[str]) -> None:
    """No secret is an argument of any program."""
    for line in lines:
        assert not SECRET.search(line), line
        assert not [secret for secret in secrets if secret in line]


def test_no_secret_is_ever_an_argument(people: People) -> None:
    """Signing in, the printed login, --exec and the credential helper show no secret to ps."""
    wanda = people("writer", signed_in=False)
    login = ("polly", "login", "--server", wanda.server.url, "--email", wanda.email, "--password-stdin")
    lines = arguments(wanda, *login, stdin=f"{wanda.password}\n")
    for command in ('eval "$(polly dockers login)"', "polly dockers login --exec"):
        ran = arguments(wanda, "sh", "-c", command)
        assert any('"login"' in line and "docker" in line and '"--password-stdin"' in line for line in ran)
        lines += ran
    lines += arguments(wanda, "polly", "dockers", "logout", "--exec")
    wanda.polly("dockers", "configure")
    reference = wanda.reference(wanda.create())
    build(wanda, new_content(), reference)
    ran = arguments(wanda, "docker", "push", reference)
    assert any("docker-credential-polly" in line for line in ran)
    assert_hidden([wanda.password], lines + ran)


def test_the_login_that_docker_keeps_is_not_the_password(wanda: Person) -> None:
    """The login in config.json works for the registry and for nothing else."""
    wanda.docker_login()
    kept = wanda.ok("sh", "-c", 'grep -o \'"auth": *"[^"]*"\' .docker/config.json | cut -d\'"\' -f4 | base64 -d')
    user, _, token = kept.partition(":")
    assert (user, bool(SECRET.fullmatch(token))) == ("POLLY", True)
    assert token not in (wanda.home / ".config/polly/profiles.json").read_text()
    done = wanda.run("env", f"POLLY_TOKEN={token}", f"POLLY_SERVER={wanda.server.url}", "polly", "dockers", "list")
    assert (done.code, done.out) == (1, "")


def test_a_push_makes_the_repository_where_the_organisation_wants_it(people: People) -> None:
    """In an organisation with create-on-push, docker push is enough; the image can be listed and pulled."""
    paul = people("pusher")
    paul.docker_login()
    reference, content = paul.reference("made/on/push", "v1"), new_content()
    build(paul, content, reference)
    paul.ok("docker", "push", reference)
    [commit] = paul.commits("made/on/push")
    assert (commit["tag"], commit["status"], commit["pushed_by"]) == ("v1", "active", paul.email)
    assert "made/on/push" in paul.polly("dockers", "list", "--all")
    other = people("pusher")
    other.docker_login()
    other.ok("docker", "pull", reference)
    assert content_of(other, reference) == content
