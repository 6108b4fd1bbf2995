"""The main steps with every common client other than Docker, and with Docker's credential helper."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from .clients import CLIENTS, Client, Containerd, Skopeo
from .images import new_content

if TYPE_CHECKING:
    from .conftest import People
    from .people import Person

HELPED = [name for name, client in CLIENTS.items() if client.reads_docker_config]


def pushed(client: Client, image: str, reference: str) -> None:
    """Push an image, which has to work."""
    done = client.push(image, reference)
    assert done.code == 0, done.said


def pulled(client: Client, reference: str) -> bytes:
    """Pull an image, which has to work; what it holds."""
    done = client.pull(reference)
    assert done.code == 0, done.said
    return client.content(reference)


@pytest.mark.parametrize("program", CLIENTS)
def test_push_overwrite_list_and_pull(people: People, program: str) -> None:
    """With each client, two pushes of a tag are two commits, both can be pulled, and a rollback is a third."""
    wanda, rita = people("writer"), people("reader")
    writer, reader = CLIENTS[program](wanda), CLIENTS[program](rita)
    writer.login()
    reader.login()
    name = wanda.create()
    tag = wanda.reference(name)
    contents = [new_content(), new_content()]
    images = [writer.make(content) for content in contents]
    for image in images:
        pushed(writer, image, tag)
    new, old = wanda.commits(name)
    assert (new["status"], old["status"]) == ("active", "inactive")
    assert new["platforms"] == old["platforms"] == ["linux/amd64"]
    assert pulled(reader, tag) == contents[1]
    assert pulled(reader, old["path"]) == contents[0]
    for _ in range(2):
        pushed(writer, images[0], tag)
        assert [each["commit"] for each in wanda.commits(name)] == [old["commit"], new["commit"], old["commit"]]


@pytest.mark.parametrize("program", CLIENTS)
def test_clients_that_are_not_signed_in_are_refused(people: People, program: str) -> None:
    """Without a token no client can pull or push, and nothing is changed."""
    wanda, nobody = people("writer"), people("nobody")
    name = wanda.create()
    client = CLIENTS[program](nobody)
    for done in (client.push(client.make(new_content()), wanda.reference(name)), client.pull(wanda.reference(name))):
        assert done.refused, done.said
    assert wanda.commits(name) == []


@pytest.mark.parametrize("program", HELPED)
def test_the_credential_helper_signs_in_automatically(people: People, program: str) -> None:
    """After polly dockers configure each client pushes and pulls without a login, and no file has a secret."""
    wanda = people("writer")
    wanda.polly("dockers", "configure")
    name = wanda.create()
    client, content = CLIENTS[program](wanda), new_content()
    pushed(client, client.make(content), wanda.reference(name))
    assert pulled(client, wanda.reference(name)) == content
    config = json.loads((wanda.home / ".docker/config.json").read_text())
    assert config["credHelpers"][wanda.server.registry] == "polly"
    assert config["auths"] == {}


@pytest.mark.parametrize("program", HELPED)
def test_the_helper_ends_with_the_sign_in(people: People, program: str) -> None:
    """After polly logout, and after polly dockers configure --undo, no client reaches anything."""
    wanda = people("writer")
    name = wanda.create()
    client = CLIENTS[program](wanda)
    image = client.make(new_content())
    wanda.polly("dockers", "configure")
    pushed(client, image, wanda.reference(name))
    wanda.polly("dockers", "configure", "--undo")
    assert client.pull(wanda.reference(name)).refused
    wanda.polly("dockers", "configure")
    assert client.pull(wanda.reference(name)).code == 0
    wanda.polly("logout")
    done = client.push(image, wanda.reference(name, "after"))
    assert done.refused, done.said


@pytest.mark.parametrize("program", HELPED)
def test_one_printed_login_works_for_all(people: People, program: str) -> None:
    """The login that Docker stores in config.json also signs in podman, skopeo and buildah."""
    wanda = people("writer")
    wanda.docker_login()
    name = wanda.create()
    client, content = CLIENTS[program](wanda), new_content()
    pushed(client, client.make(content), wanda.reference(name))
    assert pulled(client, wanda.reference(name)) == content


def test_skopeo_lists_tags_and_inspects(wanda: Person) -> None:
    """By tag and by the digest of the commit, skopeo lists and inspects what was pushed."""
    client = Skopeo(wanda)
    client.login()
    name = wanda.create()
    for tag in ("v2", "v10", "latest"):
        pushed(client, client.make(new_content()), wanda.reference(name, tag))
    path = wanda.reference(name).removesuffix(":latest")
    listed = json.loads(wanda.ok("skopeo", "list-tags", "--tls-verify=false", f"docker://{path}"))
    assert listed["Tags"] == ["latest", "v10", "v2"]
    commit = wanda.commits(name, "--tag", "v2")[0]
    for reference in (f"{path}:v2", commit["path"]):
        shown = json.loads(wanda.ok("skopeo", "inspect", "--tls-verify=false", f"docker://{reference}"))
        assert (shown["Digest"], shown["Architecture"]) == (commit["commit"], "amd64")


def test_skopeo_copies_from_one_repository_to_another(wanda: Person) -> None:
    """A copy inside the server keeps the digest, so that a promotion is the same commit."""
    client = Skopeo(wanda)
    client.login()
    source, target, content = wanda.create(), wanda.create(), new_content()
    pushed(client, client.make(content), wanda.reference(source))
    done = client.person.run(
        *("skopeo", "copy", "--src-tls-verify=false", "--dest-tls-verify=false"),
        *(f"docker://{wanda.reference(source)}", f"docker://{wanda.reference(target, 'v1')}"),
    )
    assert done.code == 0, done.said
    assert wanda.commits(source)[0]["commit"] == wanda.commits(target)[0]["commit"]
    assert pulled(client, wanda.reference(target, "v1")) == content


@pytest.mark.parametrize("program", ["docker", "ctr"])
def test_a_layer_that_the_server_has_is_mounted(people: People, program: str) -> None:
    """An image that was pushed to one repository is pushed to the next without its bytes, and is whole there."""
    wanda, rita = people("writer"), people("reader")
    client, reader = CLIENTS[program](wanda), CLIENTS[program](rita)
    client.login()
    reader.login()
    first, second, content = wanda.create(), wanda.create(), new_content()
    image = client.make(content)
    pushed(client, image, wanda.reference(first))
    done = client.push(image, wanda.reference(second))
    assert done.code == 0, done.said
    if program == "docker":
        assert f"Mounted from {wanda.org}/{first}" in done.said
    assert wanda.commits(first)[0]["commit"] == wanda.commits(second)[0]["commit"]
    assert pulled(reader, wanda.reference(second)) == content


def test_ctr_keeps_the_bytes_of_the_manifest(wanda: Person) -> None:
    """What containerd pulls by digest is what was pushed, to the byte."""
    client = Containerd(wanda)
    client.login()
    name = wanda.create()
    image = client.make(new_content())
    pushed(client, image, wanda.reference(name))
    [commit] = wanda.commits(name)
    before = wanda.ok("ctr", "content", "get", commit["commit"])
    wanda.ok("ctr", "images", "rm", "--sync", image)
    assert wanda.run("ctr", "content", "get", commit["commit"]).code != 0
    assert client.pull(commit["path"]).code == 0
    assert wanda.ok("ctr", "content", "get", commit["commit"]) == before


def test_skopeo_pushes_a_folder(wanda: Person) -> None:
    """An image that was copied to dir: is pushed again from there with the same digest."""
    client = Skopeo(wanda)
    client.login()
    name = wanda.create()
    pushed(client, client.make(new_content()), wanda.reference(name))
    folder = f"dir:{wanda.home}/copy"
    wanda.ok("skopeo", "copy", "--src-tls-verify=false", f"docker://{wanda.reference(name)}", folder)
    pushed(client, folder, wanda.reference(name, "again"))
    new, old = wanda.commits(name)
    assert (new["tag"], new["commit"]) == ("again", old["commit"])
