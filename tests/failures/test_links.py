"""40: what the owner of a folder puts into it, or into a folder above, gives no access to root's files."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.server import BIN, new_password, polly_server

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = pwd.getpwnam("nobody").pw_uid


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder of root that everybody may enter and read, as /srv is."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def home(place: Path) -> Path:
    """The home of nobody."""
    folder = place / "home"
    folder.mkdir()
    os.chown(folder, NOBODY, NOBODY)
    return folder


def init(data: Path) -> subprocess.CompletedProcess[str]:
    """Run ``polly-server init`` as root."""
    place = ("--data", str(data), "--org", "acme", "--email", "ann@acme.example", "--password-stdin")
    return subprocess.run(
        [BIN / "polly-server", "init", *place], input=new_password(), capture_output=True, text=True, check=False
    )


def link(place: Path, target: Path) -> None:
    """A link of nobody."""
    place.symlink_to(target)
    os.lchown(place, NOBODY, NOBODY)


def test_a_link_of_another_user_to_a_folder_of_root(place: Path, home: Path) -> None:
    """Root does not create a registry or write a backup through another user's link."""
    secret = place / "secret"
    secret.mkdir(mode=0o755)
    link(home / "data", secret)
    done = init(home / "data")
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert f"{home} belongs to nobody" in line
    assert init(place / "data").returncode == 0
    to = ("backup", "--data", str(place / "data"), "--to", str(home / "data"))
    refused = subprocess.run([BIN / "polly-server", *to], capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert f"{home} belongs to nobody" in refused.stderr
    (place / "mine").mkdir()
    os.chown(place / "mine", 54_321, 54_321)
    link(place / "link", place / "mine")
    assert f"{place / 'link'} belongs to nobody" in init(place / "link").stderr
    assert list(secret.iterdir()) == []


def test_a_folder_of_root_below_that_of_another_user(home: Path) -> None:
    """The owner of the folder above could replace it by a link at any moment."""
    (home / "data").mkdir()
    done = init(home / "data")
    assert done.returncode == 1
    assert f"{home} belongs to nobody" in done.stderr
    os.chown(home / "data", NOBODY, NOBODY)
    assert init(home / "data").returncode == 0
    assert (home / "data" / "polly.db").stat().st_uid == NOBODY


def test_a_folder_of_root_that_all_may_write_to(place: Path, home: Path) -> None:
    """In a folder like /tmp, others could decide where uploads leads, and gc would delete old files there."""
    shared, etc = place / "shared", place / "etc"
    etc.mkdir()
    (etc / "passwd").write_text("precious")
    os.utime(etc / "passwd", (0, 0))
    shared.mkdir()
    assert init(place / "made").returncode == 0
    for name in ("polly.db", "blobs", "journal"):
        (place / "made" / name).rename(shared / name)
    link(shared / "uploads", etc)
    shared.chmod(0o1777)
    done = subprocess.run([BIN / "polly-server", "gc", "--data", shared], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"Every user may write to {shared}" in done.stderr
    assert (etc / "passwd").read_text() == "precious"
    assert shared.stat().st_mode & 0o7777 == 0o1777
    assert init(home / "new").returncode == 0  # below such a folder each user has their own


@pytest.mark.parametrize(
    ("mode", "group", "code"),
    [(0o777, 0, 1), (0o775, 0, 0), (0o775, pwd.getpwnam("nobody").pw_gid, 1), (0o1777, 0, 0)],
)
def test_a_folder_of_root_on_the_way(place: Path, mode: int, group: int, code: int) -> None:
    """Anyone who may write to it could replace the data folder, unless it has the sticky bit, as /tmp has."""
    way = place / "way"
    (way / "data").mkdir(parents=True)
    os.chown(way, 0, group)
    way.chmod(mode)
    done = init(way / "data")
    assert done.returncode == code, done.stderr
    if code:
        line, command = done.stderr.splitlines()
        assert f"Other users may write to {way}" in line
        assert command == f"  chmod go-w {way}"
        assert list((way / "data").iterdir()) == []
        assert f"Other users may write to {way}" in init(way / "new").stderr
        assert not (way / "new").exists()
        way.chmod(mode & ~0o022)
        assert init(way / "data").returncode == 0


def test_links_of_root_and_of_the_owner_are_followed(place: Path, home: Path) -> None:
    """A link to a data folder on another disk is common."""
    disk = place / "disk"
    disk.mkdir()
    (place / "srv").symlink_to("disk/../disk")
    assert init(place / "srv").returncode == 0
    mine = place / "mine"
    mine.mkdir()
    os.chown(mine, NOBODY, NOBODY)
    link(home / "data", mine)
    assert init(home / "data").returncode == 0
    assert (mine / "polly.db").stat().st_uid == NOBODY


def test_links_in_a_circle(place: Path) -> None:
    """Links in a circle end with a message."""
    (place / "a").symlink_to("b")
    (place / "b").symlink_to("a")
    done = init(place / "a")
    assert done.returncode == 1
    assert "Too many levels of symbolic links" in done.stderr
    assert "Traceback" not in done.stderr


def test_settings_that_the_owner_has_linked_to_a_file_of_root(place: Path, home: Path) -> None:
    """Root reads the settings in the data folder as their owner: no other file is shown."""
    data, secret = home / "data", place / "secret.toml"
    assert init(data).returncode == 0
    secret.write_text('hunter2 = "x"\n')
    secret.chmod(0o600)
    link(data / "running.toml", secret)
    done = subprocess.run([BIN / "polly-server", "gc", "--data", data], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"nobody may not read {data / 'running.toml'}" in done.stderr
    assert "hunter2" not in done.stderr
    (data / "running.toml").unlink()
    polly_server("gc", "--data", str(data))
