"""Images of several platforms: one push, one commit, and each platform pulled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .clients import CLIENTS, Containerd, Docker, Skopeo
from .images import Layout, content_of, context, new_content

if TYPE_CHECKING:
    from .conftest import People
    from .people import Person

PLATFORMS = ("linux/amd64", "linux/arm64")


def index(person: Person, folder: str) -> tuple[Layout, str, list[str], dict[str, bytes]]:
    """An OCI layout with an index; the index's digest, the children's, and what each platform holds."""
    contents = {platform: new_content() for platform in PLATFORMS}
    layout = Layout(person.home / folder)
    children = [layout.image(content, platform) for platform, content in contents.items()]
    digest = layout.publish(layout.index(children), f"made.example/{folder}:image")
    return layout, digest, [str(each["digest"]) for each in children], contents


def push_index(person: Person, folder: str, reference: str) -> tuple[str, list[str], dict[str, bytes]]:
    """Push an index with skopeo; its digest, the children's, and what each platform holds."""
    layout, digest, children, contents = index(person, folder)
    source = f"oci:{layout.folder}:made.example/{folder}:image"
    person.ok("skopeo", "copy", "--all", "--dest-tls-verify=false", source, f"docker://{reference}")
    return digest, children, contents


def assert_each_platform(person: Person, reference: str, contents: dict[str, bytes]) -> None:
    """Docker pulls each platform of the image, with what it holds."""
    for platform, content in contents.items():
        person.ok("docker", "pull", "--platform", platform, reference)
        assert content_of(person, reference) == content
        system = person.ok("docker", "image", "inspect", "--format", "{{.Os}}/{{.Architecture}}", reference)
        assert system.strip() == platform
        person.ok("docker", "image", "rm", reference)


def test_an_index_is_one_commit(people: People) -> None:
    """Its children are not commits, its platforms are listed, and each is pulled by tag and by its own digest."""
    wanda, rita = people("writer"), people("reader")
    Skopeo(wanda).login()
    rita.docker_login()
    name = wanda.create()
    digest, children, contents = push_index(wanda, "first", wanda.reference(name))
    [commit] = wanda.commits(name)
    assert (commit["commit"], commit["tag"], commit["status"]) == (digest, "latest", "active")
    assert sorted(commit["platforms"]) == sorted(PLATFORMS)
    assert commit["size"] > sum(len(each) for each in contents.values())
    assert_each_platform(rita, wanda.reference(name), contents)
    for child, content in zip(children, contents.values(), strict=True):
        path = f"{wanda.reference(name).removesuffix(':latest')}@{child}"
        rita.ok("docker", "pull", path)
        assert content_of(rita, path) == content


def test_an_overwritten_index_is_pulled_by_its_digest(people: People) -> None:
    """The inactive commit still has all its platforms."""
    wanda, rita = people("writer"), people("reader")
    Skopeo(wanda).login()
    rita.docker_login()
    name = wanda.create()
    first, _, contents = push_index(wanda, "first", wanda.reference(name))
    second, _, _ = push_index(wanda, "second", wanda.reference(name))
    commits = wanda.commits(name)
    assert [(each["commit"], each["status"]) for each in commits] == [(second, "active"), (first, "inactive")]
    assert_each_platform(rita, commits[1]["path"], contents)


def test_docker_manifest_pushes_an_index(people: People) -> None:
    """With docker manifest create and push, the tags of the parts are commits, and so is the index."""
    wanda, rita = people("writer"), people("reader")
    wanda.docker_login()
    rita.docker_login()
    docker, name = Docker(wanda), wanda.create()
    tag, contents = wanda.reference(name), {}
    parts = []
    for platform in PLATFORMS:
        part = wanda.reference(name, platform.partition("/")[2])
        contents[platform] = new_content()
        assert docker.push(docker.make(contents[platform]), part).code == 0
        parts.append(part)
    wanda.ok("docker", "manifest", "create", "--insecure", tag, *parts)
    wanda.ok("docker", "manifest", "annotate", "--arch", "arm64", tag, parts[1])
    digest = wanda.ok("docker", "manifest", "push", "--insecure", tag).split()[-1]
    commits = wanda.commits(name)
    assert [(each["tag"], each["status"]) for each in commits] == [
        ("latest", "active"),
        ("arm64", "active"),
        ("amd64", "active"),
    ]
    assert (commits[0]["commit"], sorted(commits[0]["platforms"])) == (digest, sorted(PLATFORMS))
    for platform, content in contents.items():
        rita.ok("docker", "pull", "--platform", platform, tag)
        assert content_of(rita, tag) == content


@pytest.mark.parametrize("program", ["podman", "buildah"])
def test_a_manifest_list_is_pushed_with_all_it_names(people: People, program: str) -> None:
    """With podman and buildah: built for two platforms, pushed by manifest push --all as one commit."""
    wanda, rita = people("writer"), people("reader")
    wanda.docker_login()
    rita.docker_login()
    name, contents = wanda.create(), {platform: new_content() for platform in PLATFORMS}
    for platform, content in contents.items():
        folder = str(context(wanda, content))
        wanda.ok(program, "build", "--platform", platform, "--manifest", "localhost/many", folder)
    destination = f"docker://{wanda.reference(name)}"
    wanda.ok(program, "manifest", "push", "--tls-verify=false", "--all", "localhost/many", destination)
    [commit] = wanda.commits(name)
    assert sorted(commit["platforms"]) == sorted(PLATFORMS)
    assert_each_platform(rita, wanda.reference(name), contents)
    rita.ok(program, "pull", "--tls-verify=false", "--arch", "arm64", wanda.reference(name))
    assert CLIENTS[program](rita).content(wanda.reference(name)) == contents["linux/arm64"]


def test_ctr_pushes_an_index(people: People) -> None:
    """With ctr, which pushes as current Docker and BuildKit do, an index is one commit."""
    wanda, rita = people("writer"), people("reader")
    writer, reader = Containerd(wanda), Containerd(rita)
    writer.login()
    reader.login()
    name = wanda.create()
    layout, digest, children, contents = index(wanda, "many")
    done = writer.push(writer.load(layout.folder), wanda.reference(name))
    assert done.code == 0, done.said
    [commit] = wanda.commits(name)
    assert (commit["commit"], sorted(commit["platforms"])) == (digest, sorted(PLATFORMS))
    options = ("--plain-http", "--all-platforms", *reader.user)
    rita.ok("ctr", "images", "pull", *options, commit["path"])
    for each in (digest, *children):
        assert rita.ok("ctr", "content", "get", each) == wanda.ok("ctr", "content", "get", each)
    assert reader.content(commit["path"]) == contents["linux/amd64"]
