"""polly-server usage: how much space each repository takes, and how much only older commits need."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

from support.server import BIN, polly_server
from support.wire_client import OCI_INDEX, OCI_MANIFEST, Image, Person, descriptor, dumps, image

if TYPE_CHECKING:
    from support.server import Server


def usage(server: Server) -> dict[str, dict[str, Any]]:
    """What polly-server usage prints, by repository."""
    told = json.loads(polly_server("usage", "--data", str(server.data), "--output", "json"))
    return {f"{each['organisation']}/{each['name']}": each for each in told["repositories"]}


def size(*images: Image) -> int:
    """Bytes of images that share nothing."""
    return sum(len(each.manifest) + sum(map(len, each.blobs)) for each in images)


def test_what_tags_need_and_what_only_older_commits_need(server: Server, ann: Person) -> None:
    """What both need counts once, for the tags; an index also needs its images and their referrers."""
    repo = ann.new_repo()
    old, new, child = image(), image(), image()
    repo.push(old, "v1")
    repo.push(new, "v1")
    repo.push(child)
    signature = image(subject=descriptor(child.manifest, OCI_MANIFEST))
    repo.push(signature)
    index = dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(child.manifest, OCI_MANIFEST)]})
    assert repo.put("both", index, OCI_INDEX).status == 201
    unnamed = repo.push_blob(b"not named yet")
    found = usage(server)[repo.name]
    assert found["active"] == size(new, child, signature) + len(index)
    assert found["inactive"] == size(old)
    assert (found["trash"], found["unnamed"], found["commits"]) == (0, len(b"not named yet"), 3)
    assert unnamed


def test_what_is_in_the_trash(server: Server, ann: Person) -> None:
    """A commit and a whole repository in the trash are counted."""
    repo, other = ann.new_repo(), ann.new_repo()
    kept, gone, all_of_it = image(), image(), image()
    repo.push(kept, "kept")
    repo.push(gone, "gone")
    other.push(all_of_it, "v1")
    assert repo.delete(f"manifests/{gone.digest}").status == 202
    name = other.name.partition("/")[2]
    assert ann.api.send("DELETE", f"{ann.base}/repository?name={name}").status == 200
    found = usage(server)
    assert (found[repo.name]["active"], found[repo.name]["trash"]) == (size(kept), size(gone))
    assert (found[other.name]["deleted"], found[other.name]["active"]) == (True, size(all_of_it))


def test_a_table_for_people(server: Server, ann: Person) -> None:
    """A line for each repository, one for the organisation, and the disk."""
    repo = ann.new_repo()
    repo.push(image(), "v1")
    lines = polly_server("usage", "--data", str(server.data), "--org", "acme").splitlines()
    assert lines[0].split() == ["repository", "commits", "tags", "need", "older", "commits", "trash", "no", "image"]
    assert lines[1].startswith(repo.name)
    assert lines[2].startswith("all of acme")
    assert "free on the disk" in lines[3]


def test_two_organisations_of_one_name_stand_apart(server: Server, ann: Person) -> None:
    """A deleted one and a new one of the same name have separate sums, and the deleted one has its date."""
    ann.new_repo().push(image(), "v1")
    for command in ("delete", "create"):
        polly_server("org", command, "acme", "--data", str(server.data), *(["--yes"] if command == "delete" else []))
    email, _ = server.admin
    polly_server(
        "user", "add", email, "--org", "acme", "--role", "admin", "--keep-password", "--data", str(server.data)
    )
    ann.new_repo().push(image(), "v1")
    lines = polly_server("usage", "--data", str(server.data)).splitlines()
    sums = [line for line in lines if line.startswith("all of acme")]
    assert len(sums) == 2
    assert [("organisation deleted" in line) for line in sums] == [False, True]
    told = json.loads(polly_server("usage", "--data", str(server.data), "--output", "json"))["repositories"]
    assert [each["organisation_deleted_at"] is None for each in told] == [True, False]


def test_nothing_is_printed_on_stderr(server: Server, ann: Person) -> None:
    """A command that only reads the folder of a running server prints nothing on stderr."""
    ann.new_repo()
    for command in ("usage", "gc", "check"):
        done = subprocess.run(
            [str(BIN / "polly-server"), command, "--data", str(server.data)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == "", command


def test_a_wrong_organisation_is_refused(server: Server) -> None:
    """An organisation without repositories has an empty list; an unknown one is an error."""
    assert "0 blobs" in polly_server("usage", "--data", str(server.data), "--org", "acme")
    done = subprocess.run(
        [BIN / "polly-server", "usage", "--data", server.data, "--org", "acmee"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "There is no organisation 'acmee'" in done.stderr
