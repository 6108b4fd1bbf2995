"""What Debian's Docker Engine says to people without the right; nothing is changed."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from .clients import Docker
from .exchange import Registry, Relay
from .images import build, content_of, new_content

if TYPE_CHECKING:
    from .conftest import People
    from .people import Person

LARGE = 50_000_000


def new_name() -> str:
    """A name that no docker repository has."""
    return f"missing/{secrets.token_hex(4)}"


def pushed(person: Person, content: bytes) -> tuple[str, str]:
    """A new docker repository with an image in it; its name, and the image's."""
    name = person.create()
    reference = person.reference(name)
    build(person, content, reference)
    person.ok("docker", "push", reference)
    return name, reference


def test_a_push_to_a_missing_repository_names_the_command_that_makes_it(wanda: Person) -> None:
    """Docker prints to a writer the command that creates it, and the command works."""
    wanda.docker_login()
    name = new_name()
    reference = wanda.reference(name)
    build(wanda, new_content(), reference)
    assert f"polly dockers create --name {name}" in wanda.refused("docker", "push", reference)
    wanda.polly("dockers", "create", "--name", name, "--description", "made after all")
    wanda.ok("docker", "push", reference)
    assert len(wanda.commits(name)) == 1


def test_a_pull_of_what_is_missing_says_where_to_look(wanda: Person) -> None:
    """For a member, the message names the commands that list repositories and tags."""
    wanda.docker_login()
    name, _ = pushed(wanda, new_content())
    assert "polly dockers list" in wanda.refused("docker", "pull", wanda.reference(new_name()))
    said = wanda.refused("docker", "pull", wanda.reference(name, "none"))
    assert f"polly dockers commit-list --name {name}" in said


def test_a_pull_of_what_was_deleted_says_that_it_can_be_restored(people: People) -> None:
    """Docker, podman and skopeo print until when it is in the trash, and the command that restores it."""
    ann = people("admin")
    ann.docker_login()
    name, reference = pushed(ann, new_content())
    (commit,) = ann.commits(name)
    ann.polly("dockers", "delete", "--name", name, "--commit", str(commit["commit"]), "--yes")
    ann.ok("docker", "rmi", reference)
    expected = f"polly dockers restore --name {name} --tag latest"
    for said in (
        ann.refused("docker", "pull", reference),
        ann.refused("skopeo", "inspect", "--tls-verify=false", f"docker://{reference}"),
        ann.refused("podman", "pull", "--tls-verify=false", reference),
    ):
        assert expected in said
        assert "It is in the trash until" in said
    ann.polly("dockers", "restore", "--name", name, "--tag", "latest")
    ann.ok("docker", "pull", reference)


def test_a_reader_pulls_and_does_not_push(people: People) -> None:
    """The push of a reader is refused, and the tag is what it was."""
    wanda, rita = people("writer"), people("reader")
    wanda.docker_login()
    rita.docker_login()
    content = new_content()
    name, reference = pushed(wanda, content)
    before = wanda.commits(name)
    rita.ok("docker", "pull", reference)
    assert content_of(rita, reference) == content
    for tag in ("latest", "new"):
        build(rita, new_content(), rita.reference(name, tag))
        assert "denied" in rita.refused("docker", "push", rita.reference(name, tag))
    assert wanda.commits(name) == before


def test_a_refused_large_push_shows_why(people: People) -> None:
    """A reader who pushes 50 MB sees the refusal, not a broken connection."""
    wanda, rita = people("writer"), people("reader")
    rita.docker_login()
    reference = rita.reference(wanda.create())
    build(rita, new_content(LARGE), reference)
    assert "denied" in rita.refused("docker", "push", reference)


def test_an_upload_refused_while_its_body_comes_shows_why(people: People) -> None:
    """A member who is removed during an upload of 50 MB sees the refusal, not a broken connection."""
    ann, mona = people("admin"), people("passing", signed_in=False)
    name = ann.create()
    server = mona.server
    relay = Relay(("127.0.0.1", server.port), "PATCH", lambda: remove(ann, mona))
    with relay.running():
        host = f"127.0.0.1:{relay.port}"
        mona.ok("docker", "login", "--username", mona.email, "--password-stdin", host, stdin=mona.password)
        reference = f"{host}/{mona.org}/{name}:latest"
        build(mona, new_content(LARGE), reference)
        said = mona.refused("docker", "push", reference)
    assert relay.happened
    assert "denied" in said or "unauthorized" in said
    assert ann.commits(name) == []


def remove(admin: Person, member: Person) -> None:
    """Take somebody out of the organisation."""
    admin.polly("members", "remove", "--email", member.email, "--yes")


def test_a_removed_member_is_refused_at_once(people: People) -> None:
    """The next pull is refused, with an access token and a registry token that were valid a moment ago."""
    ann, mona = people("admin"), people("passing")
    ann.docker_login()
    name, reference = pushed(ann, new_content())
    build(ann, new_content(), reference)
    ann.ok("docker", "push", reference)
    mona.docker_login()
    mona.ok("docker", "pull", reference)
    _, commit = ann.commits(name)
    registry = Registry(mona, name)
    registry.sign_in(mona.token())
    paths = ["manifests/latest", f"manifests/{commit['commit']}", "tags/list", f"referrers/{commit['commit']}"]
    assert [registry.get(path).status for path in paths] == [200] * 4
    remove(ann, mona)
    mona.ok("docker", "rmi", reference)  # Docker asks no registry for a digest that it has
    for refused in (reference, commit["path"]):  # what an engine has of a digest already, it does not ask for
        assert "denied" in mona.refused("docker", "pull", refused)
    assert [registry.get(path).status for path in paths] == [401] * 4


def test_another_organisation_learns_nothing(people: People) -> None:
    """A member of another organisation can't pull or push, and gets the same message for existing and missing ones."""
    wanda, oscar = people("writer"), people("outsider")
    wanda.docker_login()
    oscar.docker_login()
    name, reference = pushed(wanda, new_content())
    missing = new_name()
    docker = Docker(oscar)
    image = docker.make(new_content())
    digest = wanda.commits(name)[0]["commit"]
    said: dict[str, list[str]] = {}
    for each in (name, missing):
        path = wanda.reference(each)
        done = [docker.push(image, path), docker.pull(path), docker.pull(f"{path.removesuffix(':latest')}@{digest}")]
        assert all(one.refused for one in done)
        said[each] = [one.said.replace(each, "NAME") for one in done]
    assert said[name] == said[missing]
    assert [each["path"] for each in wanda.commits(name)] == [f"{reference.removesuffix(':latest')}@{digest}"]


def test_docker_login_takes_email_and_password(people: People) -> None:
    """A wrong password is refused and leaves nothing; the right one signs in."""
    wanda = people("writer", signed_in=False)
    command = ("docker", "login", "--username", wanda.email, "--password-stdin", wanda.server.registry)
    assert "unauthorized" in wanda.refused(*command, stdin="wrong")
    config = wanda.home / ".docker/config.json"
    assert not config.exists() or wanda.server.registry not in config.read_text()
    assert "Login Succeeded" in wanda.ok(*command, stdin=wanda.password)


def test_a_token_ends_with_polly_dockers_logout(people: People) -> None:
    """If Docker still has the token, because nobody ran docker logout, the token is refused."""
    wanda = people("writer")
    wanda.docker_login()
    _, reference = pushed(wanda, new_content())
    wanda.polly("dockers", "logout")
    assert wanda.server.registry in (wanda.home / ".docker/config.json").read_text()
    for action in ("pull", "push"):
        assert "unauthorized" in wanda.refused("docker", action, reference)
    assert "unauthorized" in wanda.refused("docker", "login", wanda.server.registry)
