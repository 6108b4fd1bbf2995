"""``polly dockers create, list, commit-list`` and ``update`` on a pipe."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

import pytest
from pysqlite3 import dbapi2 as sqlite

from cli.people import Server, User, push

if TYPE_CHECKING:
    from collections.abc import Callable

DATE = r"[A-Z][a-z]+ \d{1,2}, \d{4}, \d\d:\d\d:\d\d [AP]M"


def test_create_says_success_and_shows_name_and_description(ann: User, server: Server) -> None:
    """The sentence is on stderr, the table of two columns on stdout."""
    done = ann.ok("dockers", "create", "--name", "new_repo", "--description", "new docker repository")
    path = f"{server.registry}/{ann.env['TEST_ORG']}/new_repo"
    assert done.err == f"Created {path}\nSuccess: docker repository generation\n"
    header, row = (re.split(r" {2,}", line) for line in done.out.splitlines())
    assert header == ["docker name", "description"]
    assert row == [path, "new docker repository"]


def test_create_takes_a_whole_path_and_slashes(ann: User, server: Server) -> None:
    """People paste HOST/organisation/name, and names hold slashes."""
    path = f"{server.registry}/{ann.env['TEST_ORG']}/demo/cache"
    done = ann.ok("dockers", "create", "--name", path, "--description", "x", "--output", "json")
    assert (done.json()["name"], done.json()["path"], done.json()["access"]) == ("demo/cache", path, "private")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Acme", "Try --name acme."),
        ("My Repo", "Try --name my-repo."),
        ("/slash/", "Try --name slash."),
        ("a..b", "Try --name a.b."),
        ("", "--name is empty"),
        ("a" * 256, "is too long"),
        ("repo:latest", "whole docker repository: --name repo."),
        ("repo@sha256:00", "whole docker repository: --name repo."),
        ("quay.example/acme/repo", "is on another server than"),
    ],
)
def test_wrong_names_get_a_correct_example(ann: User, name: str, told: str) -> None:
    """A wrong name gives exit code 2 and one line with a correct form; nothing is created."""
    done = ann.polly("dockers", "create", "--name", name, "--description", "x")
    assert (done.code, done.out) == (2, "")
    assert told in done.err
    assert len(done.err.splitlines()) == 1
    assert ann.ok("dockers", "list", "--output", "json").json() == []


def test_create_names_what_is_missing(ann: User) -> None:
    """On a pipe the command names what is missing, and does not ask; an empty description counts as missing."""
    done = ann.polly("dockers", "create", "--description", "x")
    assert (done.code, done.err) == (2, "Error: --name is missing.\n")
    done = ann.polly("dockers", "create", "--name", "x")
    assert (done.code, done.err) == (2, "Error: --description is missing.\n")
    done = ann.polly("dockers", "create")
    assert (done.code, done.err) == (2, "Error: --name is missing. --description is missing.\n")
    done = ann.polly("dockers", "create", "--name", "x", "--description", "  ")
    assert (done.code, "--description is empty" in done.err) == (2, True)


def test_a_name_that_exists_is_refused(ann: User) -> None:
    """The server's message is shown, with exit code 1."""
    ann.ok("dockers", "create", "--name", "one", "--description", "x")
    done = ann.polly("dockers", "create", "--name", "one", "--description", "y")
    assert done.code == 1
    assert "one" in done.err


def test_a_reader_is_refused(person: Callable[..., User]) -> None:
    """The role is not enough: exit code 1 and the server's message."""
    person()
    done = person("reader").polly("dockers", "create", "--name", "one", "--description", "x")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("Error: ")


def test_list_on_a_pipe_is_aligned_text(ann: User, images: list[str], server: Server) -> None:
    """Every column is complete and without colours; the number of items is on stderr."""
    del images
    done = ann.ok("dockers", "list")
    header, row = done.out.splitlines()
    assert re.split(r" {2,}", header) == [
        "docker repository", "created by", "created at", "docker access", "description", "tags", "commits", "size",
        "last push",
    ]  # fmt: skip
    path = f"{server.registry}/{ann.env['TEST_ORG']}/team/gpu"
    words = rf"private  +for the GPU machines  +2  +3 +[0-9.]+ [kM]?B  {DATE}"
    assert re.fullmatch(rf"{re.escape(path)}  {re.escape(ann.email)}  {DATE}  {words}", row)
    assert "\x1b" not in done.out
    assert done.err == "1 of 1 docker repository.\n"


def test_list_as_json_has_what_programs_need(ann: User, images: list[str]) -> None:
    """A list of objects with times in UTC."""
    del images
    [item] = ann.ok("dockers", "list", "--output", "json").json()
    assert {"name", "path", "description", "access", "commits", "size", "created_by", "created_at", "pushed_at"} <= set(
        item
    )
    assert (item["name"], item["commits"], item["tags"], item["access"]) == ("team/gpu", 3, 2, "private")
    assert item["created_at"].endswith("Z")


def test_list_counts_from_either_end(ann: User, server: Server) -> None:
    """--all, --latest and --oldest sort by creation, the default by last push; only one option is allowed."""
    for number in range(22):
        ann.ok("dockers", "create", "--name", f"r{number}", "--description", f"number {number}")
    push(server, ann, "r0", "latest", b"x")

    def names(*arguments: str) -> list[str]:
        return [each["name"] for each in ann.ok("dockers", "list", *arguments, "--output", "json").json()]

    newest = [f"r{number}" for number in reversed(range(22))]
    assert names("--all") == newest
    assert names("--latest", "2") == newest[:2]
    assert names("--oldest", "2") == ["r0", "r1"]
    assert names() == ["r0", *newest[:19]]
    assert names("--search", "number 21") == ["r21"]
    assert "has 'zzz' in its name or description.\n" in ann.ok("dockers", "list", "--search", "zzz").err
    assert "Did you mean --search zzz?" in ann.polly("dockers", "list", "zzz").err
    assert "20 of 22 docker repositories; --all lists all" in ann.ok("dockers", "list").err
    for wrong in (["--all", "--latest", "2"], ["--latest", "0"], ["--latest", "two"]):
        assert ann.polly("dockers", "list", *wrong).code == 2


MANY = """
WITH RECURSIVE numbers(number) AS (VALUES (1) UNION ALL SELECT number + 1 FROM numbers WHERE number < 1500)
INSERT INTO repositories (organisation_id, name, description, access, created_by, created_at, active_at)
    SELECT organisation_id, 'm' || number, 'one of many', 'private', created_by, created_at, active_at + number
    FROM repositories, numbers WHERE name = 'oldest' ORDER BY number;
UPDATE organisations SET repositories = repositories + 1500
    WHERE id = (SELECT organisation_id FROM repositories WHERE name = 'oldest')
"""


def test_a_search_goes_on_by_itself(ann: User, server: Server) -> None:
    """The server searches a part of very many for each page; the command asks until it has what it shows, or all."""
    ann.ok("dockers", "create", "--name", "oldest", "--description", "the needle")
    with contextlib.closing(sqlite.connect(server.data / "polly.db")) as connection:
        connection.executescript(MANY)
    done = ann.ok("dockers", "list", "--search", "needle", "--output", "json")
    assert ([each["name"] for each in done.json()], done.err) == (["oldest"], "")
    assert ann.ok("dockers", "list", "--search", "needle").err == "1 of 1 docker repository.\n"
    assert "No docker repository" in ann.ok("dockers", "list", "--search", "absent").err
    for options in ([], ["--output", "json"]):
        told = ann.ok("dockers", "list", "--search", "many", *options).err
        assert told == "20 docker repositories. There may be more; --all lists all of them.\n"
    done = ann.ok("dockers", "list", "--search", "many", "--all", "--output", "json")
    assert ([each["name"] for each in done.json()], done.err) == ([f"m{each}" for each in range(1500, 0, -1)], "")
    assert "20 of 1501 docker repositories; --all lists all" in ann.ok("dockers", "list").err


def test_an_empty_list_says_how_to_fill_it(ann: User) -> None:
    """Nothing on stdout; the command to run on stderr."""
    done = ann.ok("dockers", "list")
    assert done.out == ""
    assert "polly dockers create" in done.err
    ann.ok("dockers", "create", "--name", "one", "--description", "x")
    done = ann.ok("dockers", "commit-list", "--name", "one")
    assert done.out == ""
    assert "docker push" in done.err


def test_commit_list_shows_every_push(ann: User, images: list[str], server: Server) -> None:
    """Commits are listed newest first with whole digests; the overwritten one is inactive; help lines follow."""
    path = f"{server.registry}/{ann.env['TEST_ORG']}/team/gpu"
    done = ann.ok("dockers", "commit-list", "--name", "team/gpu", "--all")
    header, *rows = (re.split(r" {2,}", line) for line in done.out.splitlines())
    assert header == ["tag", "pushed by", "pushed at", "commit_hash", "tag status", "size", "platforms"]
    assert [(row[0], row[3], row[4]) for row in rows] == [
        ("latest", images[2], "active"),
        ("latest", images[1], "inactive"),
        ("v1", images[0], "active"),
    ]
    assert done.err.splitlines() == [
        f"Commits for the docker repository {path}",
        "To pull the docker for:",
        f"active tag: docker pull {path}:tag",
        f"inactive tag: docker pull {path}@commit_hash",
    ]


def test_commit_list_as_json_has_what_programs_need(ann: User, images: list[str], server: Server) -> None:
    """A list of objects whose path can be pulled."""
    items = ann.ok("dockers", "commit-list", "--name", "team/gpu", "--output", "json").json()
    assert {"tag", "commit", "status", "size", "platforms", "pushed_at", "pushed_by", "path"} <= set(items[0])
    assert [each["commit"] for each in items] == images[::-1]
    assert items[1]["path"] == f"{server.registry}/{ann.env['TEST_ORG']}/team/gpu@{images[1]}"


def test_commit_list_takes_a_tag_and_a_number(ann: User, images: list[str]) -> None:
    """--tag filters, --oldest starts with the oldest; an unknown tag or name is refused."""

    def commits(*arguments: str) -> list[str]:
        done = ann.ok("dockers", "commit-list", "--name", "team/gpu", *arguments, "--output", "json")
        return [each["commit"] for each in done.json()]

    assert commits("--tag", "latest") == [images[2], images[1]]
    assert commits("--tag", "latest", "--latest", "1") == [images[2]]
    assert commits("--oldest", "2") == images[:2]
    assert ann.polly("dockers", "commit-list", "--name", "team/gpu", "--tag", "none").code == 1
    done = ann.polly("dockers", "commit-list", "--name", "none")
    assert (done.code, "none" in done.err) == (1, True)
    done = ann.polly("dockers", "commit-list")
    assert (done.code, done.err) == (2, "Error: --name is missing.\n")


def test_tags_shows_each_tag_with_its_commit(ann: User, images: list[str], server: Server) -> None:
    """The latest push comes first, with the whole digest, size, platforms, time and author; each tag is listed once."""
    done = ann.ok("dockers", "tags", "--name", "team/gpu", "--all")
    header, *rows = (re.split(r" {2,}", line) for line in done.out.splitlines())
    assert header == ["tag", "commit_hash", "size", "platforms", "pushed at", "pushed by"]
    assert [(row[0], row[1], row[3], row[5]) for row in rows] == [
        ("latest", images[2], "linux/amd64", ann.email),
        ("v1", images[0], "linux/amd64", ann.email),
    ]
    assert all(re.fullmatch(DATE, row[4]) for row in rows)
    assert done.err == f"Tags of the docker repository {server.registry}/{ann.env['TEST_ORG']}/team/gpu\n"
    assert "2 of 2 tags." in ann.ok("dockers", "tags", "--name", "team/gpu").err


def test_tags_as_json_from_either_end(ann: User, images: list[str], server: Server) -> None:
    """Each has a path that can be pulled; --latest and --oldest choose, one at a time; a missing one is refused."""
    items = ann.ok("dockers", "tags", "--name", "team/gpu", "--output", "json").json()
    path = f"{server.registry}/{ann.env['TEST_ORG']}/team/gpu"
    assert [(each["path"], each["commit"]) for each in items] == [
        (f"{path}:latest", images[2]),
        (f"{path}:v1", images[0]),
    ]
    for option, tag in (("--latest", "latest"), ("--oldest", "v1")):
        [item] = ann.ok("dockers", "tags", "--name", "team/gpu", option, "1", "--output", "json").json()
        assert item["tag"] == tag
    assert ann.polly("dockers", "tags", "--name", "team/gpu", "--all", "--latest", "1").code == 2
    assert ann.polly("dockers", "tags", "--name", "none").code == 1
    ann.ok("dockers", "create", "--name", "one", "--description", "x")
    done = ann.ok("dockers", "tags", "--name", "one")
    assert (done.out, "docker push" in done.err) == ("", True)


def test_json_has_the_commit_under_its_older_name_too(ann: User, images: list[str]) -> None:
    """``commit`` is the name; ``commit_hash`` is kept for scripts."""
    for command in ("commit-list", "tags"):
        items = ann.ok("dockers", command, "--name", "team/gpu", "--all", "--output", "json").json()
        assert items[0]["commit_hash"] == items[0]["commit"] == images[2]


def test_update_changes_what_is_given(ann: User) -> None:
    """Description and sparse indexes change, the rest stays."""
    ann.ok("dockers", "create", "--name", "one", "--description", "before")
    done = ann.ok("dockers", "update", "--name", "one", "--description", "after", "--output", "json")
    assert done.err == "Success: Docker information updated\n"
    assert (done.json()["description"], done.json()["access"]) == ("after", "private")
    done = ann.ok("dockers", "update", "--name", "one", "--sparse-indexes", "allow", "--output", "json")
    assert (done.json()["description"], done.json()["sparse_indexes"]) == ("after", "allow")
    done = ann.polly("dockers", "update", "--name", "one")
    assert (done.code, "--public" in done.err) == (2, True)
    assert ann.polly("dockers", "update", "--name", "one", "--sparse-indexes", "perhaps").code == 2


def test_text_of_other_people_cannot_act_on_a_terminal(ann: User) -> None:
    """Escape sequences and marks of text direction are removed from tables, and escaped in JSON."""
    evil = "red \x1b[31mtext\x1b[0m \u202edrow\x9b2J"
    ann.ok("dockers", "create", "--name", "one", "--description", evil)
    assert "red text drow2J" in ann.ok("dockers", "list").out
    done = ann.ok("dockers", "list", "--output", "json")
    assert done.json()[0]["description"] == evil
    assert not set(done.out) & set("\x1b\x9b\u202e")


def test_public_and_private_at_once_are_refused(ann: User) -> None:
    """Both options together give exit code 2; nothing is created or changed."""
    done = ann.polly("dockers", "create", "both", "--description", "x", "--public", "--private")
    assert (done.code, "--public and --private" in done.err) == (2, True)
    assert ann.polly("dockers", "tags", "both").code == 1


def test_a_name_with_a_slash_says_where_it_is(ann: User) -> None:
    """The message names the organisation, because the first part of a name may look like one."""
    done = ann.ok("dockers", "create", "nosuchorg/zz", "--description", "x")
    assert f"It is in the organisation {ann.env['TEST_ORG']}." in done.err
