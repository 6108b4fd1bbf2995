"""A rebuild links each repository with what it had, and with nothing that its manifests only name."""

from __future__ import annotations

import contextlib
import json
import shutil
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest
from pysqlite3 import dbapi2 as sqlite

from polly_dockers.db import total_sizes
from polly_dockers.db.journal import compaction, frames, records
from polly_dockers.maintenance import rebuild
from support.registry_rows import fill, held
from support.server import Server, polly_server
from support.wire_client import (
    LAYER,
    OCI_INDEX,
    OCI_MANIFEST,
    Person,
    Repo,
    admin,
    descriptor,
    dumps,
    image,
    new_admin,
    sha256,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Connection

pytestmark = pytest.mark.server_options("--collect-seconds", "0")

SECRET: Final = b"a layer of another organisation"
FOREIGN: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"


def sparse_indexes(person: Person, repo: Repo, value: str) -> None:
    """Let manifests of the repository name what it lacks, or no longer."""
    name = repo.name.partition("/")[2]
    assert person.api.json("PATCH", f"{person.base}/repository?name={name}", {"sparse_indexes": value}).status == 200


def put_image(repo: Repo, config: bytes, *layers: dict[str, Any]) -> None:
    """Push the manifest of an image without anything that it names."""
    body = dumps({"schemaVersion": 2, "config": descriptor(config), "layers": layers})
    assert repo.put(sha256(body), body, OCI_MANIFEST).status == 201


def put_index(repo: Repo, *inside: dict[str, Any], **more: object) -> bytes:
    """Push an index without anything that it names; its bytes."""
    body = dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": inside, **more})
    assert repo.put(sha256(body), body, OCI_INDEX).status == 201
    return body


def plant(eve: Person, child: bytes) -> list[Repo]:
    """Push manifests that name a blob and a manifest of another organisation, in all ways that are not refused."""
    foreign, config_too, sparse, index, toggled = (eve.new_repo() for _ in range(5))
    for each in (foreign, sparse, toggled):
        each.push_blob(b"{}")
    for each in (sparse, index, toggled):
        sparse_indexes(eve, each, "allow")
    put_image(foreign, b"{}", descriptor(SECRET, FOREIGN))
    put_image(config_too, SECRET, descriptor(SECRET, FOREIGN))
    put_image(sparse, b"{}", descriptor(SECRET))
    for kind in (OCI_MANIFEST, LAYER):
        put_index(index, descriptor(SECRET, kind), descriptor(child, OCI_MANIFEST))
    put_image(toggled, b"{}", descriptor(SECRET))
    sparse_indexes(eve, toggled, "deny")
    return [foreign, config_too, sparse, index, toggled]


def reachable(person: Person, repos: list[Repo], *digests: str) -> list[tuple[str, str]]:
    """Which of the digests each repository gives: (repository, digest)."""
    found = []
    for each in repos:
        repo = person.at(each.name)
        found += [
            (repo.name, digest)
            for digest in digests
            if repo.blob(digest).status == 200 or repo.manifest(digest).status == 200
        ]
    return found


def compact(server: Server) -> None:
    """Replace the journal by a snapshot."""
    compaction.compact(server.data, lambda _took: None)


def as_older(server: Server) -> None:
    """Write the journal as an older version did: it does not say what a repository lacked, nor what arrived later."""
    fields = len(records.ManifestPushed.__struct_fields__) - 2
    for path in frames.files(server.data):
        whole = b""
        for batch in frames.read_file(path):
            changes: list[Any] = []
            for record in batch.records:
                if isinstance(record, records.ManifestPushed):
                    changes.append(msgspec.to_builtins(record, builtin_types=(bytes,))[: 1 + fields])
                elif not isinstance(record, records.Arrived):
                    changes.append(record)
            whole += frames.frame(batch.id, batch.previous, changes)
        path.write_bytes(whole)


def compact_as_older(server: Server) -> None:
    """Replace the journal by a snapshot of an older version."""
    compact(server)
    as_older(server)


def leave(_server: Server) -> None:
    """Leave the journal as it is."""


def signed_in_again(person: Person) -> Person:
    """The same person, without the tokens that they had."""
    return Person(person.port, person.org, person.email, person.password)


JOURNALS: Final = [leave, compact, as_older, compact_as_older]


def give_back(server: Server, person: Person) -> None:
    """Give a person their role and password again."""
    place = ("--data", str(server.data), "--email", person.email, "--password-stdin")
    polly_server("user", "add", "--org", person.org, "--role", "admin", *place, stdin=person.password)


@pytest.mark.parametrize("journal", JOURNALS)
def test_a_digest_gives_nothing_after_a_rebuild(server: Server, journal: Callable[[Server], None]) -> None:
    """1 and 11: the database is lost. A repository does not get what its manifests name and what it lacked."""
    ann, eve = admin(server), new_admin(server)
    repo, made = ann.new_repo(), image(SECRET.decode())
    repo.push(made, "v1")
    planted = plant(eve, made.manifest)
    wanted = (sha256(SECRET), made.digest)
    assert reachable(eve, planted, *wanted) == []
    server.stop()
    journal(server)
    server.lose_database()
    polly_server("rebuild", "--data", str(server.data))
    server.start()
    for person in (ann, eve):
        give_back(server, person)
    ann, eve = signed_in_again(ann), signed_in_again(eve)
    assert reachable(eve, planted, *wanted) == []
    assert reachable(ann, [repo], *wanted) == [(repo.name, digest) for digest in wanted]
    assert ann.at(repo.name).manifest("v1").body == made.manifest


@pytest.mark.parametrize("journal", JOURNALS)
def test_a_digest_gives_nothing_after_an_old_database(
    server: Server, tmp_path: Path, journal: Callable[[Server], None]
) -> None:
    """1 and 11: the same when the database is one from before, which the start brings up to date."""
    ann, eve = admin(server), new_admin(server)
    repo, made = ann.new_repo(), image(SECRET.decode())
    repo.push(made, "v1")
    server.stop()
    server.copy_database(tmp_path / "old.db")
    server.start()
    planted = plant(eve, made.manifest)
    again = ann.at(repo.name).push(image("pushed after the copy"), "v2")
    server.stop()
    journal(server)
    server.lose_database()
    shutil.copy(tmp_path / "old.db", server.data / "polly.db")
    server.start()
    ann, eve = signed_in_again(ann), signed_in_again(eve)
    wanted = (sha256(SECRET), made.digest, sha256(b"pushed after the copy"))
    assert reachable(eve, planted, *wanted) == []
    assert reachable(ann, [repo], *wanted) == [(repo.name, digest) for digest in wanted]
    assert ann.at(repo.name).manifest("v2").header("Docker-Content-Digest") == again


def links(folder: Path) -> list[list[Any]]:
    """What each manifest of a data folder is linked with, and what it lacks; and what each repository has."""
    queries = (
        "SELECT manifest_id, child_id FROM manifest_children",
        "SELECT manifest_id, repository_id, digest FROM manifest_missing",
        "SELECT m.manifest_id, m.repository_id, b.digest FROM manifest_blobs AS m JOIN blobs AS b ON b.id = m.blob_id",
        "SELECT r.repository_id, b.digest FROM repository_blobs AS r JOIN blobs AS b ON b.id = r.blob_id",
    )
    with contextlib.closing(sqlite.connect(f"file:{folder / 'polly.db'}?mode=ro", uri=True)) as connection:
        return [sorted(connection.execute(query).fetchall()) for query in queries]


def trash(server: Server) -> list[tuple[Any, ...]]:
    """The items in the trash, with their totals."""
    with contextlib.closing(sqlite.connect(server.data / "polly.db")) as connection:
        return list(connection.execute("SELECT kind, id, name, commits, size FROM trash ORDER BY id"))


def lacking(ann: Person) -> None:
    """Manifests that lack something, that got it later, and that lost it again."""
    repo, other = ann.new_repo(), ann.new_repo()
    for each in (repo, other):
        sparse_indexes(ann, each, "allow")
        each.push_blob(b"{}")
    put_image(repo, b"{}", descriptor(b"never"), descriptor(b"later"), descriptor(b"mounted", FOREIGN))
    put_image(other, b"{}", descriptor(b"never"), descriptor(b"later"))
    other.push_blob(b"mounted")
    put_image(other, b"{}", descriptor(b"mounted"))
    repo.push_blob(b"later")
    mount = f"blobs/uploads/?mount={sha256(b'mounted')}&from={other.name}"
    assert ann.at(repo.name, "pull,push", other.name).send("POST", repo.path(mount)).status == 201
    first, second = image(), image()
    children = [descriptor(each.manifest, OCI_MANIFEST) for each in (first, second)]
    index = put_index(repo, *children, descriptor(b"of a cache"))
    put_index(repo, descriptor(index, OCI_INDEX), descriptor(b"of a cache"))
    repo.push_blob(b"of a cache")
    repo.push(first)
    repo.push(second)
    assert repo.delete(f"manifests/{second.digest}").status == 202
    gone = put_index(repo, children[0], annotations={"gone": "1"})
    assert repo.delete(f"manifests/{sha256(gone)}").status == 202
    assert repo.delete(f"manifests/{first.digest}").status == 202
    repo.push(first)
    assert repo.delete(f"blobs/{repo.push_blob(b'hidden')}").status == 202
    put_image(repo, b"{}", descriptor(b"hidden"))
    repo.push_blob(b"hidden")


@pytest.mark.parametrize("journal", JOURNALS[:2])
def test_what_a_manifest_lacked_and_what_arrived(
    server: Server, tmp_path: Path, journal: Callable[[Server], None]
) -> None:
    """After a rebuild, and after catching up, each manifest has the links that it had, and lacks what it lacked."""
    ann = admin(server)
    ann.new_repo().push(image(), "v1")
    server.stop()
    server.copy_database(tmp_path / "old.db")
    server.start()
    lacking(ann)
    server.stop()
    journal(server)
    for old in (False, True):
        copy = tmp_path / f"copy-{old}"
        shutil.copytree(server.data, copy, ignore=shutil.ignore_patterns("polly.db*"))
        if old:
            shutil.copy(tmp_path / "old.db", copy / "polly.db")
        done = rebuild.rebuild(copy)
        assert (done.lost, done.unproven) == ([], [])
        assert links(copy) == links(server.data)


def test_what_arrives_after_the_copy(server: Server, tmp_path: Path) -> None:
    """A manifest of an old database is linked with what arrived since, though no newer manifest names it."""
    ann = admin(server)
    repo = ann.new_repo()
    repo.push_blob(b"{}")
    put_image(repo, b"{}", descriptor(b"later", FOREIGN))
    server.stop()
    server.copy_database(tmp_path / "old.db")
    server.start()
    ann.at(repo.name).push_blob(b"later")
    server.stop()
    before = links(server.data)
    server.lose_database()
    shutil.copy(tmp_path / "old.db", server.data / "polly.db")
    assert rebuild.rebuild(server.data).lost == []
    assert links(server.data) == before


def test_sparse_children_are_not_lost(server: Server) -> None:
    """A rebuild does not report what a sparse index lacked. Only what the repository had is lost with its file."""
    ann = admin(server)
    repo, made = ann.new_repo(), image()
    sparse_indexes(ann, repo, "allow")
    put_index(repo, descriptor(b"never pushed", OCI_MANIFEST))
    gone = put_index(repo, descriptor(b"nor this", OCI_MANIFEST))
    repo.push(made, "v1")
    for digest in (sha256(gone), made.digest):
        assert repo.delete(f"manifests/{digest}").status == 202
    server.stop()
    server.lose_database()
    assert rebuild.rebuild(server.data).lost == []
    server.lose_database()
    layer = sha256(made.blobs[1])
    [file] = (server.data / "blobs").glob(f"*/*/{layer.partition(':')[2]}*")
    file.unlink()
    with pytest.raises(AssertionError) as failed:
        polly_server("rebuild", "--data", str(server.data))
    assert f"lost: {layer}, which {repo.name}@{made.digest} names\n1 blob is lost." in str(failed.value)


def test_an_older_journal_of_a_sparse_repository(server: Server) -> None:
    """Only what is certain is linked; the rest is named, also by a check, until it is pushed again."""
    ann = admin(server)
    repo, sparse, certain = ann.new_repo(), image("layer"), image("of both")
    repo.push(certain, "both")
    sparse_indexes(ann, repo, "allow")
    repo.push(sparse, "v1")
    put_image(repo, certain.blobs[0], descriptor(b"of both"))
    server.stop()
    as_older(server)
    server.lose_database()
    done = rebuild.rebuild(server.data)
    layer = sha256(b"layer")
    assert [(each.manifest, each.digest) for each in done.unproven] == [(f"{repo.name}@{sparse.digest}", layer)]
    assert done.lost == []
    checked = json.loads(polly_server("check", "--data", str(server.data), "--output", "json"))
    assert (checked["incomplete"], checked["damages"]) == ([f"{repo.name}@{sparse.digest}"], [])
    server.start()
    give_back(server, ann)
    again = signed_in_again(ann).at(repo.name)
    assert again.blob(sha256(b"of both")).status == 200
    assert again.blob(layer).status == 404
    again.push_blob(b"layer")
    server.stop()
    assert json.loads(polly_server("check", "--data", str(server.data), "--output", "json"))["incomplete"] == []


def test_the_trash_has_its_totals(server: Server) -> None:
    """A deleted repository, and all that an organisation had when it was deleted, has its commits and bytes again."""
    ann, eve = admin(server), new_admin(server)
    fill(ann)
    eve.new_repo().push(image(), "v1", "v2")
    assert eve.api.get(f"{eve.base}/repositories").status == 200  # which brings totals up to date
    server.stop()
    polly_server("org", "delete", "--data", str(server.data), "--org", eve.org, "--yes")
    before = trash(server)
    assert {kind for kind, *_ in before} == {"tag", "commit", "repository", "organisation"}
    server.lose_database()
    polly_server("rebuild", "--data", str(server.data))
    assert trash(server) == before


def test_each_manifest_is_measured_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rebuild computes the size of a manifest once, however many indexes hold it."""
    ann = admin(server)
    repo, made = ann.new_repo(), [image() for _ in range(3)]
    for each in made:
        repo.push(each)
    children = [descriptor(each.manifest, OCI_MANIFEST) for each in made]
    for number in range(3):
        put_index(repo, *children, annotations={"number": str(number)})
    server.stop()
    before = held(server.data)
    measured: list[int] = []
    measure = total_sizes.measure

    def counted(connection: Connection, manifest_ids: list[int]) -> None:
        measured.extend(manifest_ids)
        measure(connection, manifest_ids)

    monkeypatch.setattr(total_sizes, "measure", counted)
    server.lose_database()
    rebuild.rebuild(server.data)
    assert held(server.data) == before
    assert len(measured) == len(set(measured)) == 6
