"""Files that are also used by others: several processes, links, mounts, protected folders, sudo, full disks."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from polly_dockers.cli import docker_config, files, profiles
from polly_dockers.cli.errors import CommandError

if TYPE_CHECKING:
    from pathlib import Path

HOST = "registry.acme.example"
CHANGE = "import sys, pathlib; from polly_dockers.cli import docker_config as d; d.change("
CHANGE += "pathlib.Path(sys.argv[1]), sys.argv[2], undo=False)"
UNSHARE = ["unshare", "--map-root-user", "--mount", "sh", "-ec"]
"""Run a script that may mount; nothing of it is seen outside."""


def change(path: Path, host: str = HOST) -> None:
    """Change Docker's file in a process of its own."""
    subprocess.run([sys.executable, "-c", CHANGE, path, host], check=True)


def helpers(path: Path) -> dict[str, str]:
    """Return the helpers that the file names."""
    found = json.loads(path.read_text())["credHelpers"]
    assert isinstance(found, dict)
    return found


def test_25_changes_at_once_are_all_kept(tmp_path: Path) -> None:
    """Each process sees what the others wrote, even in a new folder, and no lock file is left."""
    path = tmp_path / "new/config.json"
    hosts = [f"{number}.acme.example" for number in range(25)]
    with ThreadPoolExecutor(25) as pool:
        list(pool.map(lambda host: change(path, host), hosts))
    assert set(helpers(path)) == set(hosts)
    assert list(path.parent.iterdir()) == [path]


def test_profiles_of_processes_at_once_are_all_kept(tmp_path: Path) -> None:
    """If ten processes sign in at once, there are ten profiles."""
    code = (
        "import sys; from polly_dockers.cli import profiles as p\n"
        "with p.edit() as k: k.by_name[sys.argv[1]] = p.Profile('https://a', 'a', 'e', 't', '', {})"
    )
    env = os.environ | {"XDG_CONFIG_HOME": str(tmp_path)}
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda n: subprocess.run([sys.executable, "-c", code, str(n)], env=env, check=True), range(10)))
    assert len(json.loads((tmp_path / "polly/profiles.json").read_text())["profiles"]) == 10
    assert [each.name for each in (tmp_path / "polly").iterdir()] == ["profiles.json"]


def test_a_lock_that_is_never_freed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped process does not block others without an end; the error names the lock."""
    monkeypatch.setattr(files, "LOCK_SECONDS", 0)
    path = tmp_path / "config.json"
    with files.locked(path), pytest.raises(CommandError, match=r"config.json can't be changed: another process"):
        docker_config.change(path, HOST, undo=False)
    docker_config.change(path, HOST, undo=False)
    assert helpers(path) == {HOST: "polly"}


@pytest.mark.parametrize("name", ["hard", "symbolic", "chain"])
def test_a_link_stays_a_link(tmp_path: Path, name: str) -> None:
    """A symbolic link still points to the file, and a hard link still names the same file."""
    real, link = tmp_path / "dotfiles/config.json", tmp_path / "config.json"
    real.parent.mkdir()
    real.write_text("{}")
    if name == "hard":
        link.hardlink_to(real)
    elif name == "symbolic":
        link.symlink_to(real)
    else:
        (tmp_path / "between").symlink_to("dotfiles/config.json")
        link.symlink_to("between")
    assert docker_config.change(link, HOST, undo=False)
    assert helpers(real) == helpers(link) == {HOST: "polly"}
    assert link.is_symlink() is (name != "hard")
    assert link.samefile(real)


def test_profiles_behind_a_link_stay_behind_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The link stays even if the file that it names does not exist yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "polly").mkdir()
    (tmp_path / "polly/profiles.json").symlink_to(tmp_path / "real.json")
    with profiles.edit():
        pass
    assert (tmp_path / "polly/profiles.json").is_symlink()
    assert stat.S_IMODE((tmp_path / "real.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("what", ["config.json", "profiles.json"])
def test_a_mounted_file_is_changed_in_place(tmp_path: Path, what: str) -> None:
    """A file that is mounted into a container cannot be replaced, because rename fails with EBUSY."""
    outside, inside = tmp_path / "outside.json", tmp_path / "polly" / what
    inside.parent.mkdir()
    inside.touch()
    outside.write_text(json.dumps({"profiles": {}, "padding": "x" * 5000}))
    code = "CHANGE" if what == "config.json" else "from polly_dockers.cli import profiles as p\nwith p.edit(): pass"
    script = f'mount --bind "$1" "$2"; "$3" -c "$4" "$2" {HOST}'
    command = [*UNSHARE, script, "sh", str(outside), str(inside), sys.executable, CHANGE if code == "CHANGE" else code]
    subprocess.run(command, check=True, env=os.environ | {"XDG_CONFIG_HOME": str(tmp_path)})
    document = json.loads(outside.read_text())
    assert document.get("credHelpers") == ({HOST: "polly"} if what == "config.json" else None)
    assert inside.read_text() == ""
    assert list(inside.parent.iterdir()) == [inside]


def test_a_read_only_mount_is_named(tmp_path: Path) -> None:
    """The error is one line that says what to set, and the file does not change."""
    (tmp_path / "config.json").write_text("{}")
    script = 'mount --bind "$1" "$1"; mount -o remount,ro,bind "$1"; exec "$2" -c "$3" "$1/config.json" host'
    code = CHANGE.replace("; d.change", "\ntry: d.change") + "\nexcept d.CommandError as e: print(e.message)"
    command = [*UNSHARE, script, "sh", str(tmp_path), sys.executable, code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "config.json can't be changed: Read-only file system" in done.stdout
    assert "DOCKER_CONFIG=/path" in done.stdout
    assert (tmp_path / "config.json").read_text() == "{}"


def test_a_file_in_a_protected_folder_is_changed_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no file can be created beside it, the file itself may still be written."""
    path = tmp_path / "config.json"
    path.write_text("{}")
    node, opened = path.stat().st_ino, os.open

    def protected(place: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT:
            raise PermissionError(13, "Permission denied")
        return opened(place, flags, mode)

    monkeypatch.setattr(os, "open", protected)
    files.check_writable(path)
    assert docker_config.change(path, HOST, undo=False)
    assert helpers(path) == {HOST: "polly"}
    assert path.stat().st_ino == node


def test_what_is_overwritten_in_place_comes_back_after_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the disk gets full while the file is written, its old content is restored."""
    path = tmp_path / "config.json"
    path.write_text('{"old": 1}')
    (tmp_path / "second").hardlink_to(path)
    synced = os.fsync
    failures = [OSError(28, "No space left on device")]

    def full(descriptor: int) -> None:
        if failures:
            raise failures.pop()
        synced(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CommandError, match="No space left on device"):
        docker_config.change(path, HOST, undo=False)
    assert path.read_text() == '{"old": 1}'


def test_a_device_is_never_replaced(tmp_path: Path) -> None:
    """If root's config.json is a link to /dev/null, /dev/null stays a device."""
    (tmp_path / "config.json").symlink_to("/dev/null")
    with pytest.raises(CommandError, match="not a regular file"):
        docker_config.change(tmp_path / "config.json", HOST, undo=False)
    assert not os.path.isfile("/dev/null")  # noqa: PTH113 - a plain question


def test_a_loop_of_links_is_named(tmp_path: Path) -> None:
    """The error is one line, without the name of an exception."""
    (tmp_path / "config.json").symlink_to(tmp_path / "config.json")
    with pytest.raises(CommandError, match="Too many levels of symbolic links"):
        docker_config.change(tmp_path / "config.json", HOST, undo=False)


def test_modes_do_not_follow_the_umask(tmp_path: Path) -> None:
    """Only the user can read new files; Docker's file keeps its permissions."""
    before = os.umask(0)
    try:
        files.replace(tmp_path / "secret", "one")
        (tmp_path / "secret").chmod(0o644)
        files.replace(tmp_path / "secret", "two")
        (tmp_path / "config.json").write_text("{}")
        (tmp_path / "config.json").chmod(0o640)
        docker_config.change(tmp_path / "config.json", HOST, undo=False)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "config.json").stat().st_mode) == 0o640


def test_owners_stay_and_root_makes_nothing_of_its_own(tmp_path: Path) -> None:
    """With sudo in the home folder of another user, files that are created or changed there belong to that user."""
    home = tmp_path / "home"
    home.mkdir()
    code = (
        "import os, pathlib, sys; home = pathlib.Path(sys.argv[1]); os.chown(home, 1000, 1000)\n"
        "from polly_dockers.cli import files, profiles as p\nfrom polly_dockers.cli import docker_config as d\n"
        "d.change(home / '.docker/config.json', 'a', undo=False)\n"
        "os.chown(home / '.docker/config.json', 1000, 100)\n"
        "d.change(home / '.docker/config.json', 'b', undo=False)\n"
        "with p.edit(): print(sorted({(s.st_uid, s.st_gid) for s in map(pathlib.Path.stat, home.rglob('*'))}))\n"
        "print((home / '.config/polly/profiles.json').stat().st_uid)\n"
    )
    env = os.environ | {"HOME": str(home)}
    env.pop("XDG_CONFIG_HOME", None)
    command = ["unshare", "--map-root-user", "--map-users=auto", "--map-groups=auto"]
    command += [sys.executable, "-c", code, str(home)]
    if os.geteuid() == 0:
        command = command[4:]
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["[(1000, 100), (1000, 1000)]", "1000"]
