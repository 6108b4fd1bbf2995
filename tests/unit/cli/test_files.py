"""The files of the commands: profiles, Docker's config.json, and how they are replaced."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING

import pytest

from polly_dockers.cli import docker_config, files, profiles
from polly_dockers.cli.errors import CommandError
from polly_dockers.cli.profiles import Profile

if TYPE_CHECKING:
    from pathlib import Path

HOST = "registry.acme.example"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the files in a folder of the test."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path


def profile(**changes: str) -> Profile:
    """Return a profile."""
    values = {"server": f"https://{HOST}", "registry": HOST, "email": "ann@acme.example", "token": "polly_x"}
    values |= {"expires_at": "2030-01-01T00:00:00Z"} | changes
    return Profile(docker_tokens={}, borrowed=False, **values)


def test_profiles_come_back_as_they_were_saved(home: Path) -> None:
    """Profiles are read with their names and the current one, also from a file of a newer version."""
    with profiles.edit() as known:
        known.by_name["work"] = profile()
        known.current = "work"
    assert profiles.load().by_name == {"work": profile()}
    document = json.loads((home / "polly/profiles.json").read_text())
    document["profiles"]["work"]["of_the_future"] = 1
    (home / "polly/profiles.json").write_text(json.dumps(document))
    assert profiles.load().by_name["work"] == profile()


def test_without_a_file_there_are_none() -> None:
    """Without a file there are no profiles."""
    assert profiles.load().by_name == {}


def test_the_one_that_is_left_is_the_current_one() -> None:
    """If one profile is left, it becomes the current one; if two are left, neither does."""
    known = profiles.Profiles("a", {name: profile() for name in "abc"})
    known.remove("a")
    assert known.current == ""
    known.current = "b"
    known.remove("b")
    assert known.current == "c"


def test_a_failure_in_between_changes_nothing(home: Path) -> None:
    """An edit that fails leaves the file as it was."""
    with profiles.edit() as known:
        known.by_name["work"] = profile()
    before = (home / "polly/profiles.json").read_bytes()
    with pytest.raises(KeyError), profiles.edit() as known:
        del known.by_name["work"], known.by_name["none"]
    assert (home / "polly/profiles.json").read_bytes() == before


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"profiles": []}', '{"profiles": {"a": {}}}', '{"profiles": {"a": {"server": 1}}}']
)
def test_a_broken_file_is_named(home: Path, text: str) -> None:
    """The error names the file and says what to do."""
    (home / "polly").mkdir()
    (home / "polly/profiles.json").write_text(text)
    with pytest.raises(CommandError, match=r"profiles.json is not a file of profiles.*polly login"):
        profiles.load()


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    """Only the user can read the new file, whatever the umask, and nothing is left beside it."""
    before = os.umask(0)
    try:
        files.replace(tmp_path / "file", "one")
        files.replace(tmp_path / "file", "two")
    finally:
        os.umask(before)
    assert (tmp_path / "file").read_text() == "two"
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_replacement_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk is full, the error is raised, the old content stays, and there is no temporary file."""
    files.replace(tmp_path / "file", "one")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.replace(tmp_path / "file", "two")
    assert (tmp_path / "file").read_text() == "one"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_new_docker_config_is_private(tmp_path: Path) -> None:
    """It has the permissions that Docker would give it."""
    path = tmp_path / "new/config.json"
    assert docker_config.change(path, HOST, undo=False)
    assert json.loads(path.read_text()) == {"auths": {}, "credHelpers": {HOST: "polly"}}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not docker_config.change(path, HOST, undo=False)


@pytest.mark.parametrize("indent", ["\t", "  ", "    "])
def test_a_docker_config_comes_back_by_undo(tmp_path: Path, indent: str) -> None:
    """Undo restores the file byte for byte, whatever its indentation, with the helpers of other registries."""
    path = tmp_path / "config.json"
    document = {"b": 1, "auths": {}, "credHelpers": {"gcr.io": "gcloud"}, "a": {"credsStore": "x"}}
    path.write_text(json.dumps(document, indent=indent))
    before = path.read_text()
    assert docker_config.change(path, HOST, undo=False)
    assert json.loads(path.read_text())["credHelpers"] == {"gcr.io": "gcloud", HOST: "polly"}
    assert docker_config.change(path, HOST, undo=True)
    assert path.read_text() == before


def test_undo_leaves_the_helper_of_another(tmp_path: Path) -> None:
    """Undo does not remove a helper that polly did not write."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"credHelpers": {HOST: "pass"}}))
    assert not docker_config.change(path, HOST, undo=True)
    assert json.loads(path.read_text()) == {"credHelpers": {HOST: "pass"}}


def test_an_empty_or_null_part_is_no_trouble(tmp_path: Path) -> None:
    """Docker writes such files. Afterwards "auths" is there, for clients that expect it."""
    for text in (
        "",
        "  \n",
        "{}",
        '{"credHelpers": null}',
        '{"auths": null}',
        f'{{"credHelpers": {{"{HOST}": "polly"}}}}',
    ):
        path = tmp_path / "config.json"
        path.write_text(text)
        assert docker_config.change(path, HOST, undo=False)
        assert json.loads(path.read_text()) == {"auths": {}, "credHelpers": {HOST: "polly"}}
