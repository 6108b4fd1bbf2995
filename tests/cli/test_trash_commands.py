"""``polly dockers delete, restore`` and ``trash``: deletions are shown and confirmed, and can be restored."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from cli.people import Server, User, manifest_of, push

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def digest(server: Server, ann: User) -> str:
    """A repository with an image under v1; its digest."""
    ann.ok("dockers", "create", "--name", "one", "--description", "x")
    return push(server, ann, "one", "v1", b"of the trash")


def tags(ann: User) -> list[str]:
    """The tags and their status, as commit-list shows them."""
    items = ann.ok("dockers", "commit-list", "--name", "one", "--output", "json").json()
    return [f"{item['tag']} {item['status']}" for item in items]


@pytest.mark.parametrize("what", ["tag", "commit", "repository"])
def test_delete_and_restore(ann: User, digest: str, what: str) -> None:
    """The message names what was deleted; the printed command restores it."""
    options = {"tag": ["--tag", "v1"], "commit": ["--commit", digest], "repository": []}[what]
    done = ann.ok("dockers", "delete", "--name", "one", *options, "--yes")
    assert "is in the trash" in done.err
    assert f"polly dockers restore --name one{''.join(f' {each}' for each in options)}" in done.err
    if what == "tag":
        assert tags(ann) == ["v1 inactive"]
    elif what == "commit":
        assert tags(ann) == []
    else:
        assert ann.polly("dockers", "commit-list", "--name", "one").code == 1
    listed = ann.ok("dockers", "trash", "--output", "json").json()
    assert [item["kind"] for item in listed] == [what]
    assert "is restored" in ann.ok("dockers", "restore", "--name", "one", *options).err
    assert tags(ann) == ["v1 active"]
    assert "is empty" in ann.ok("dockers", "trash").err


def test_nothing_is_deleted_unasked(ann: User, digest: str) -> None:
    """On a pipe, without --yes: exit code 2, what would be deleted, and nothing is changed."""
    done = ann.polly("dockers", "delete", "--name", "one")
    assert (done.code, done.out) == (2, "")
    assert "with its 1 commit, " in done.err
    assert "--yes" in done.err
    assert tags(ann) == ["v1 active"]
    assert digest


def test_a_person_is_asked(ann: User, digest: str) -> None:
    """On a terminal, no deletes nothing and yes deletes; the same command in one line is shown."""
    terminal = ann.terminal("dockers", "delete", "--name", "one", "--commit", digest)
    terminal.see("Delete it?")
    terminal.type("n\r")
    terminal.see("Nothing was deleted.")
    assert terminal.end() == 1
    assert "Error" not in terminal.text()
    assert tags(ann) == ["v1 active"]
    terminal = ann.terminal("dockers", "delete", "--name", "one", "--commit", digest)
    terminal.see("Delete it?")
    terminal.type("y\r")
    terminal.see("is in the trash")
    assert terminal.end() == 0
    assert tags(ann) == []


def test_restore_under_another_name(ann: User, digest: str) -> None:
    """If the name is taken again, the error names --as, and --as works."""
    ann.ok("dockers", "delete", "--name", "one", "--yes")
    ann.ok("dockers", "create", "--name", "one", "--description", "y")
    refused = ann.polly("dockers", "restore", "--name", "one")
    assert (refused.code, "--as" in refused.err) == (1, True)
    ann.ok("dockers", "restore", "--name", "one", "--as", "before")
    items = ann.ok("dockers", "commit-list", "--name", "before", "--output", "json").json()
    assert [item["commit"] for item in items] == [digest]


def test_each_of_two_that_had_one_name_comes_back(ann: User, digest: str) -> None:
    """The one deleted last is restored first, under another name; then the older one."""
    ann.ok("dockers", "delete", "--name", "one", "--yes")
    ann.ok("dockers", "create", "--name", "one", "--description", "second")
    ann.ok("dockers", "delete", "--name", "one", "--yes")
    ann.ok("dockers", "restore", "--name", "one", "--as", "second")
    ann.ok("dockers", "restore", "--name", "one")
    items = ann.ok("dockers", "commit-list", "--name", "one", "--output", "json").json()
    assert [item["commit"] for item in items] == [digest]


def test_tag_and_commit_can_not_be_together(ann: User, digest: str) -> None:
    """Exit code 2, and why."""
    for command in ("delete", "restore"):
        done = ann.polly("dockers", command, "--name", "one", "--tag", "v1", "--commit", digest)
        assert (done.code, "can't be together" in done.err) == (2, True)


def test_the_beginning_of_a_digest_is_enough(ann: User, digest: str) -> None:
    """With or without sha256:; the messages name what was deleted, and how to restore it, by the whole digest."""
    bare = digest.partition(":")[2]
    for given in (bare[:6], digest[:15], f"127.0.0.1/acme/one@{digest}"):
        done = ann.ok("dockers", "delete", "--name", "one", "--commit", given, "--yes")
        assert f"polly dockers restore --name one --commit {digest}" in done.err
        assert f"@{digest} is restored" in ann.ok("dockers", "restore", "--name", "one", "--commit", given).err
    assert tags(ann) == ["v1 active"]
    for wrong in (bare[:5], "latest", f"sha256:{bare[:6]}g"):
        for command in ("delete", "restore"):
            done = ann.polly("dockers", command, "--name", "one", "--commit", wrong)
            assert (done.code, "at least 6 hexadecimal digits" in done.err) == (2, True)


def test_a_beginning_that_several_have_is_exit_code_2(server: Server, ann: User) -> None:
    """Each candidate is on a line of its own, and nothing is deleted."""
    ann.ok("dockers", "create", "--name", "one", "--description", "x")
    first, second = alike()
    digests = sorted([push(server, ann, "one", "v1", first), push(server, ann, "one", "v2", second)])
    done = ann.polly("dockers", "delete", "--name", "one", "--commit", digests[0][7:13], "--yes")
    assert done.code == 2
    assert done.err.splitlines()[1:] == [f"  {each}" for each in digests]
    assert tags(ann) == ["v2 active", "v1 active"]


def alike() -> tuple[bytes, bytes]:
    """Return the layers of two images whose digests begin with the same 6 digits."""
    seen: dict[str, bytes] = {}
    while True:
        content = str(len(seen)).encode()
        digest = hashlib.sha256(manifest_of(content)).hexdigest()[:6]
        if digest in seen:
            return seen[digest], content
        seen[digest] = content


def test_a_tag_that_went_with_its_commit_comes_back(ann: User, digest: str) -> None:
    """--tag finds the commit."""
    ann.ok("dockers", "delete", "--name", "one", "--commit", digest, "--yes")
    done = ann.ok("dockers", "restore", "--name", "one", "--tag", "v1")
    assert f"@{digest} is restored, with its tag v1" in done.err
    assert tags(ann) == ["v1 active"]


def test_the_tags_of_a_commit_are_named(ann: User, digest: str) -> None:
    """The trash and the restore of a deleted commit name its tags, and the empty list of tags points to the trash."""
    ann.ok("dockers", "delete", "--name", "one", "--commit", digest, "--yes")
    heading, line = ann.ok("dockers", "trash").out.splitlines()
    assert ("tags" in heading.split(), "v1" in line.split()) == (True, True)
    assert "polly dockers trash" in ann.ok("dockers", "tags", "one").err
    assert "polly dockers trash" in ann.polly("dockers", "delete", "--name", "one", "--tag", "v1", "--yes").err
    assert (
        "Its tags are restored too, unless they are in use: v1"
        in ann.ok("dockers", "restore", "--name", "one", "--commit", digest).err
    )


def test_an_option_twice(ann: User, digest: str) -> None:
    """Exit code 2, and nothing is deleted, because one of two tags would be ignored silently."""
    done = ann.polly("dockers", "delete", "--name", "one", "--tag", "v1", "--tag", "v2", "--yes")
    assert (done.code, "--tag is given twice" in done.err) == (2, True)
    assert tags(ann) == ["v1 active"]
    assert digest


def test_a_writer_deletes_nothing(person: Callable[..., User], ann: User, digest: str) -> None:
    """The error names the role that is needed."""
    bob = person("writer")
    done = bob.polly("dockers", "delete", "--name", "one", "--yes")
    assert (done.code, "admin" in done.err) == (1, True)
    assert tags(ann) == ["v1 active"]
    assert digest


def test_a_pasted_image_never_means_its_repository(ann: User, digest: str) -> None:
    """For ``one:v1`` and ``one@sha256:…`` the error suggests --tag and --commit, and the suggestion works."""
    path = ann.ok("dockers", "list", "--output", "json").json()[0]["path"]
    ends = ((":v1", "--tag v1."), (f"@{digest}", f"--commit {digest}."), (f":v1@{digest}", f"--commit {digest}."))
    for command, more in (("delete", ["--yes"]), ("restore", [])):
        for given in ("one", path):
            for end, right in ends:
                done = ann.polly("dockers", command, f"{given}{end}", *more)
                assert (done.code, f"Use --name one {right}" in done.err) == (2, True)
    assert tags(ann) == ["v1 active"]
    done = ann.polly("dockers", "commit-list", "one:v1")
    assert (done.code, "Use --name one --tag v1." in done.err) == (2, True)
    done = ann.polly("dockers", "update", "one:v1", "--description", "x")
    assert (done.code, "for a whole docker repository: --name one." in done.err) == (2, True)


def test_a_new_name_that_is_taken(ann: User, digest: str) -> None:
    """The error is about the taken name, not about a deleted one."""
    ann.ok("dockers", "create", "--name", "two", "--description", "x")
    ann.ok("dockers", "delete", "--name", "one", "--yes")
    done = ann.polly("dockers", "restore", "--name", "one", "--as", "two")
    assert (done.code, "There is already a docker repository" in done.err) == (1, True)
    assert digest
