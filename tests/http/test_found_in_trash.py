"""Finding deleted content: what a refused pull says, tags deleted with their commit, beginnings of digests."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from polly_dockers.config import Config
from polly_dockers.errors import ManifestUnknown
from polly_dockers.maintenance import rebuild
from polly_dockers.model import Actor, Digest, RepositoryName, Tag
from polly_dockers.registry import deletion, pull
from polly_dockers.server import data_folder
from support.trash import everything, move_to_trash, restore, short
from support.wire_client import Client, Image, Person, Repo, image, member, sha256, stranger

if TYPE_CHECKING:
    from pathlib import Path

    from support.server import Server


def alike() -> list[Image]:
    """Two images whose digests begin with the same 6 digits."""
    seen: dict[str, Image] = {}
    while True:
        made = image("one of two", annotations={"number": str(len(seen))})
        other = seen.setdefault(made.digest[7:13], made)
        if other is not made:
            return [other, made]


def refused(repo: Repo, reference: str) -> tuple[str, str]:
    """Code and message of the refusal to pull."""
    answer = repo.manifest(reference)
    assert answer.status == 404, answer.body
    return answer.code, answer.message


def test_a_pull_of_what_was_deleted_says_where_it_is(ann: Person) -> None:
    """The error says who deleted a tag or commit, until when it is kept, and which command restores it."""
    repo = ann.new_repo()
    first, second = image(), image()
    repo.push(first, "v1")
    repo.push(second, "v2")
    until = move_to_trash(ann, repo, "&tag=v1")["restorable_until"][:16].replace("T", " ") + " UTC"
    move_to_trash(ann, repo, f"&commit={second.digest}")
    for reference, option in (("v1", "--tag v1"), ("v2", "--tag v2"), (second.digest, f"--commit {second.digest}")):
        code, said = refused(repo, reference)
        assert code == "MANIFEST_UNKNOWN"
        assert f"was deleted by {ann.email} on " in said
        assert f"It is in the trash until {until}." in said
        assert said.endswith(f": polly dockers restore --name {short(repo)} {option}")
    restore(ann, repo, tag="v1")
    restore(ann, repo, commit=second.digest)
    assert repo.manifest("v1").body == first.manifest
    assert repo.manifest("v2").body == second.manifest
    assert "trash" not in refused(repo, "v3")[1]


def test_nobody_but_members_learns_what_was_deleted(server: Server, ann: Person) -> None:
    """In a public repository others get the error for content that never existed, in a private one a 401."""
    repo = ann.new_repo()
    ann.api.json("PATCH", f"{ann.base}/repository?name={short(repo)}", {"access": "public"})
    made = image()
    repo.push(made, "v1")
    move_to_trash(ann, repo, f"&commit={made.digest}")
    anonymous = Client(server.port).get(f"/token?service=polly&scope=repository:{repo.name}:pull").json()["token"]
    outsiders = [stranger(server).at(repo.name, "pull"), Repo(server.port, f"Bearer {anonymous}", repo.name)]
    for outsider in outsiders:
        for deleted, never in (("v1", "v2"), (made.digest, sha256(b"never pushed"))):
            code, said = refused(outsider, deleted)
            assert (code, said.replace(deleted, never)) == refused(outsider, never)
    assert "in the trash" in refused(member(server, "reader").at(repo.name, "pull"), "v1")[1]
    ann.api.json("PATCH", f"{ann.base}/repository?name={short(repo)}", {"access": "private"})
    for outsider in outsiders:
        assert {outsider.manifest(each).status for each in ("v1", made.digest)} == {401}


def test_a_pull_from_a_repository_that_was_deleted(ann: Person) -> None:
    """The error says so too, with the command that restores the repository."""
    repo = ann.new_repo()
    repo.push(image(), "v1")
    move_to_trash(ann, repo)
    other = ann.repo(short(repo))
    code, said = refused(other, "v1")
    assert code == "NAME_UNKNOWN"
    assert f"The docker repository {repo.name} was deleted by {ann.email} on " in said
    assert said.endswith(f": polly dockers restore --name {short(repo)}")


def test_restoring_a_tag_that_went_with_its_commit(ann: Person) -> None:
    """The commit that had the tag comes back with it, though an older one exists; the item names the commit."""
    repo = ann.new_repo()
    first, second = image(), image()
    repo.push(first, "v1")
    repo.push(second, "v1", "v2")
    before = everything(ann, repo)
    move_to_trash(ann, repo, f"&commit={second.digest}")
    item = restore(ann, repo, tag="v1")
    assert (item["kind"], item["name"], item["tags"]) == ("commit", second.digest, ["v1", "v2"])
    assert everything(ann, repo) == before


def test_restoring_a_tag_and_then_its_commit_deleted(ann: Person) -> None:
    """If a tag was deleted and then its commit, restoring the tag restores the commit too."""
    repo = ann.new_repo()
    made = image()
    repo.push(made, "v1")
    before = everything(ann, repo)
    move_to_trash(ann, repo, "&tag=v1")
    move_to_trash(ann, repo, f"&commit={made.digest}")
    assert restore(ann, repo, tag="v1")["kind"] == "tag"
    assert everything(ann, repo) == before


def test_the_trash_is_not_gone_through_for_what_never_was(
    server: Server, ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trash is searched only for a tag that existed once: clients ask for each tag before they push it."""
    repo = ann.new_repo()
    made, other = image(), image()
    repo.push(made, "tag-gone", "with-commit")
    repo.push(other, "v1")
    move_to_trash(ann, repo, "&tag=tag-gone")
    move_to_trash(ann, repo, f"&commit={made.digest}")
    looked: list[str] = []
    explain = deletion.explain_missing

    def noted(*arguments: Any) -> str | None:  # noqa: ANN401 - as the function
        looked.append(str(arguments[-1]))
        return explain(*arguments)

    monkeypatch.setattr(deletion, "explain_missing", noted)

    async def ask() -> None:
        registry = await data_folder.open_context(Config(data=server.data))
        rows = await registry.database.read(
            lambda connection: connection.exec_driver_sql(
                "SELECT id, password_version FROM users WHERE email = ?", (ann.email,)
            ).one()
        )
        actor = Actor(user_id=rows.id, password_version=rows.password_version, grants=None, address="127.0.0.1")
        name = RepositoryName.of(*repo.name.split("/", 1))
        try:
            for reference in (Tag("never"), Digest(sha256(b"never")), *gone):
                with pytest.raises(ManifestUnknown):
                    await pull.manifest(registry, actor, name, reference, largest=0)
            await pull.manifest(registry, actor, name, Tag("v1"), largest=0)
        finally:
            registry.close()

    gone = (Tag("tag-gone"), Tag("with-commit"), Digest(made.digest))
    asyncio.run(ask())
    assert looked == [str(each) for each in gone]


def test_a_tag_that_its_commit_brings_back(server: Server, ann: Person, tmp_path: Path) -> None:
    """If restoring a tag restores an older commit that had it, the item of the tag leaves the trash as well."""
    repo = ann.new_repo()
    first, second = image(), image()
    repo.push(first, "v1")
    move_to_trash(ann, repo, f"&commit={first.digest}")
    repo.push(second, "v1")
    move_to_trash(ann, repo, "&tag=v1")
    move_to_trash(ann, repo, f"&commit={second.digest}")
    with contextlib.closing(sqlite3.connect(server.data / "polly.db", timeout=30)) as connection, connection:
        connection.execute("UPDATE trash SET purging_at = deleted_at WHERE name = ?", (second.digest,))
    assert restore(ann, repo, tag="v1")["kind"] == "tag"
    assert repo.manifest("v1").body == first.manifest
    shutil.copytree(server.data, tmp_path / "copy", ignore=shutil.ignore_patterns("polly.db*"))
    rebuild.rebuild(tmp_path / "copy")
    for folder in (server.data, tmp_path / "copy"):
        with contextlib.closing(sqlite3.connect(folder / "polly.db", timeout=30)) as connection:
            query = "SELECT name FROM trash WHERE repository_id = (SELECT id FROM repositories WHERE name = ?)"
            found = connection.execute(query, (short(repo),)).fetchall()
        assert found == [(second.digest,)], folder


def test_a_tag_that_is_there_again_is_not_moved(ann: Person) -> None:
    """The tag's previous commit is restored by its digest, which the error names."""
    repo = ann.new_repo()
    first, second = image(), image()
    repo.push(first, "v1")
    move_to_trash(ann, repo, f"&commit={first.digest}")
    repo.push(second, "v1")
    answer = ann.api.json("POST", f"{ann.base}/trash", {"repository": short(repo), "tag": "v1"})
    assert (answer.status, answer.code) == (409, "TAG_EXISTS")
    assert f"--commit {first.digest}" in answer.message
    assert repo.manifest("v1").body == second.manifest


def test_the_beginning_of_a_digest_names_a_commit(ann: Person) -> None:
    """From 6 digits on, with or without sha256:, a beginning names a commit; one that matches none is unknown."""
    repo = ann.new_repo()
    made = image()
    repo.push(made, "v1")
    bare = made.digest.partition(":")[2]
    for prefix in (bare[:6], bare[:20], f"sha256:{bare[:6]}", bare):
        assert move_to_trash(ann, repo, f"&commit={prefix}")["name"] == made.digest
        gone = ann.api.send("DELETE", f"{ann.base}/repository?name={short(repo)}&commit={prefix}")
        assert (gone.status, gone.code) == (404, "MANIFEST_UNKNOWN")
        assert restore(ann, repo, commit=prefix)["name"] == made.digest
        again = ann.api.json("POST", f"{ann.base}/trash", {"repository": short(repo), "commit": prefix})
        assert (again.status, again.code) == (404, "NOT_IN_TRASH")
    for wrong in (bare[:5], "sha256:", "sha512:" + bare[:6], bare[:6].upper() + "X", "sha256:" + "0" * 65):
        answer = ann.api.send("DELETE", f"{ann.base}/repository?name={short(repo)}&commit={wrong}")
        assert answer.code in {"DIGEST_INVALID", "MANIFEST_UNKNOWN"}, answer.body
    assert repo.manifest("v1").body == made.manifest


def test_a_beginning_that_several_digests_have(ann: Person) -> None:
    """Nothing is deleted or restored, and the error lists the candidates."""
    repo = ann.new_repo()
    several = alike()
    for number, made in enumerate(several):
        repo.push(made, f"v{number}")
    shared = several[0].digest[7:13]
    answer = ann.api.send("DELETE", f"{ann.base}/repository?name={short(repo)}&commit={shared}")
    assert (answer.status, answer.code) == (400, "DIGEST_AMBIGUOUS")
    assert answer.json()["errors"][0]["detail"]["candidates"] == sorted(each.digest for each in several)
    assert all(each.digest in answer.message for each in several)
    assert len(ann.commits(short(repo))["items"]) == 2
    for each in several:
        move_to_trash(ann, repo, f"&commit={each.digest}")
    answer = ann.api.json("POST", f"{ann.base}/trash", {"repository": short(repo), "commit": f"sha256:{shared}"})
    assert (answer.status, answer.code) == (400, "DIGEST_AMBIGUOUS")
    restore(ann, repo, commit=several[0].digest[:14] + several[0].digest[14:40])


def test_what_is_being_purged_is_gone(server: Server, ann: Person) -> None:
    """It cannot be restored any more, so no error offers that, and no beginning of its digest finds it."""
    repo = ann.new_repo()
    made = image()
    repo.push(made, "v1")
    move_to_trash(ann, repo, f"&commit={made.digest}")
    assert "in the trash" in refused(repo, "v1")[1]
    with contextlib.closing(sqlite3.connect(server.data / "polly.db", timeout=30)) as connection, connection:
        connection.execute("UPDATE trash SET purging_at = deleted_at WHERE name = ?", (made.digest,))
    for reference in ("v1", made.digest):
        assert "in the trash" not in refused(repo, reference)[1]
    for what in ({"tag": "v1"}, {"commit": made.digest[7:20]}):
        answer = ann.api.json("POST", f"{ann.base}/trash", {"repository": short(repo), **what})
        assert (answer.status, answer.code) == (404, "NOT_IN_TRASH")
