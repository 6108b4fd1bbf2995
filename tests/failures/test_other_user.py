"""40: root runs operator commands while another user's server runs: all works afterwards, and nobody else reads."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from failures.test_signals import certificate, shown, until
from polly_dockers.errors import Unavailable
from polly_dockers.system import ownership
from support.server import BIN, Server, free_port, new_password, polly_server
from support.wire_client import Person, image, sha256

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = pwd.getpwnam("nobody").pw_uid
STRANGER = 54_321
"""A user id without a name in the system."""


@pytest.fixture(params=[NOBODY, STRANGER], ids=["named", "numbered"])
def owner(request: pytest.FixtureRequest) -> int:
    """The user that the server runs as."""
    return int(request.param)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder of root that everybody may enter and read, as /srv is."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def as_user(uid: int, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run polly-server to its end as a user."""
    command = ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", str(BIN / "polly-server"))
    return subprocess.run(
        [*command, *arguments], input=stdin, capture_output=True, text=True, check=False, timeout=120, cwd="/"
    )


class OtherServer(Server):
    """A server on a folder of another user, who runs it unless ``by_root``; its commands are run as root.

    The folder is as ``useradd --create-home`` makes it, open to readers, and so is the umask.
    """

    def __init__(self, place: Path, owner: int, *, by_root: bool = False) -> None:
        super().__init__(place / "data", free_port())
        self.owner = owner
        self.data.mkdir()
        os.chown(self.data, owner, owner)
        self.data.chmod(0o755)
        with loose_umask():
            self.init()
        if not by_root:
            who = ("setpriv", f"--reuid={owner}", f"--regid={owner}", "--clear-groups")
            self.command = (*who, str(BIN / "polly-server"))

    def start(self) -> None:
        """Start it with the umask 0."""
        with loose_umask():
            super().start()

    @property
    def ann(self) -> Person:
        """The admin, signed in again."""
        return Person(self.port, self.org, *self.admin)

    def push(self) -> str:
        """Push an image to a new repository; the path of its first blob."""
        repo = self.ann.new_repo()
        made = image()
        repo.push(made, "v1")
        return f"{repo.name}@{sha256(made.blobs[0])}"

    def pulls(self, path: str) -> bool:
        """Whether a blob can be pulled unchanged."""
        name, _, digest = path.partition("@")
        return sha256(self.ann.repo(name.partition("/")[2]).blob(digest).body) == digest

    def everything_is_the_owners(self) -> None:
        """All files of the data folder belong to its owner, and only the owner may use them."""
        for found in (self.data, *self.data.rglob("*")):
            status = found.lstat()
            assert (status.st_uid, status.st_mode & 0o077) == (self.owner, 0), (found, stat.filemode(status.st_mode))


@contextlib.contextmanager
def loose_umask() -> Iterator[None]:
    """Processes started inside have the umask 0."""
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def test_everything_that_root_does_beside_it(place: Path) -> None:
    """After each command as root, the server still takes pushes, serves pulls, collects, is backed up and starts."""
    owner = STRANGER
    server = OtherServer(place, owner)
    server.everything_is_the_owners()
    server.start()
    first = server.push()
    data = ("--data", str(server.data))
    bob = ("--org", "biolab", "--email", "bob@b.example", "--role", "admin", "--password-stdin")
    polly_server("org", "create", *data, "--org", "biolab")
    polly_server("user", "add", *data, *bob, stdin=new_password())
    polly_server("key", "rotate", *data)
    polly_server("gc", *data)
    polly_server("usage", *data)
    polly_server("audit", *data)
    backup = place / "backup"
    polly_server("backup", *data, "--to", str(backup))
    assert (backup.stat().st_uid, backup.stat().st_mode & 0o777) == (0, 0o700)
    for blob in server.data.glob("blobs/*/*/*"):
        blob.write_bytes(b"damaged")
    done = subprocess.run([BIN / "polly-server", "check", *data, "--repair", "--from", backup], check=False)
    assert done.returncode in {0, 1}
    assert server.pulls(first)
    polly_server("backup", *data, "--to", str(backup))
    server.everything_is_the_owners()
    second = server.push()
    server.stop()

    server.lose_database()
    polly_server("rebuild", *data)
    server.give_admin_back()
    server.everything_is_the_owners()
    server.start()
    assert server.pulls(first)
    assert server.pulls(second)
    server.push()
    polly_server("gc", *data)
    server.stop()

    server.data.rename(place / "lost")
    server.data.mkdir(mode=0o755)
    os.chown(server.data, owner, owner)
    polly_server("restore", "--from", str(backup), *data)
    server.everything_is_the_owners()
    server.start()
    assert server.pulls(first)
    server.push()
    server.everything_is_the_owners()
    server.stop()


def test_root_runs_it_on_the_folder_of_another(place: Path, owner: int) -> None:
    """The workers belong to that user for good; root's key and a port below 1024 still work."""
    server = OtherServer(place, owner, by_root=True)
    (place / "settings.toml").write_text("workers = 1\n")
    (place / "settings.toml").chmod(0o600)
    server.options = ("--config", str(place / "settings.toml"))
    server.start()
    path = server.push()
    assert server.process is not None
    supervisor = server.process.pid
    [worker] = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    status = dict(line.split(":", 1) for line in Path(f"/proc/{worker}/status").read_text().splitlines())
    assert status["Uid"].split() == [str(owner)] * 4
    assert status["Gid"].split() != ["0"] * 4
    assert "0" not in status["Groups"].split()
    assert server.pulls(path)
    server.everything_is_the_owners()
    server.stop()


def test_a_backup_in_a_folder_of_somebody_else(place: Path) -> None:
    """What root copies there belongs to the owner of that folder, and nobody else may read it."""
    server = OtherServer(place, STRANGER)
    backup = place / "backup"
    backup.mkdir()
    os.chown(backup, NOBODY, NOBODY)
    polly_server("backup", "--data", str(server.data), "--to", str(backup))
    for found in backup.rglob("*"):
        assert (found.lstat().st_uid, found.lstat().st_mode & 0o077) == (NOBODY, 0), found
    server.everything_is_the_owners()


def its_backup(server: OtherServer, place: Path) -> Path:
    """A backup of the server, in a folder of the same owner."""
    backup = place / "backup"
    backup.mkdir()
    os.chown(backup, server.owner, server.owner)
    polly_server("backup", "--data", str(server.data), "--to", str(backup))
    return backup


def test_a_restore_by_root_belongs_to_the_service(place: Path, owner: int) -> None:
    """A new data folder in a new folder of root gets the owner of the backup, so the service can use it."""
    server = OtherServer(place, owner)
    backup = its_backup(server, place)
    server.data = place / "new" / "polly"
    polly_server("restore", "--from", str(backup), "--data", str(server.data))
    server.everything_is_the_owners()
    server.start()
    server.stop()


def test_a_restore_where_the_service_may_not_go(place: Path, owner: int) -> None:
    """A restore below a private folder of root says how the service gets access, and leaves no folder."""
    server = OtherServer(place, owner)
    backup = its_backup(server, place)
    private = place / "private"
    private.mkdir(mode=0o700)
    restore = [str(BIN / "polly-server"), "restore", "--from", str(backup), "--data", str(private / "new" / "polly")]
    done = subprocess.run(restore, capture_output=True, text=True, check=False)
    said, command = done.stderr.splitlines()[:-1], done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert f"may not enter {private}" in " ".join(said), done
    assert not list(private.iterdir())
    subprocess.run(command.split(), check=True)
    subprocess.run(restore, check=True)


FROM_BOTH = "To bring back everything from a backup and the journal, with passwords, roles and tokens as in the backup:"
BACK = "To go back to the newest backup, without what changed since:"


@pytest.mark.parametrize(
    ("heading", "words"),
    [(FROM_BOTH, ["install", "mv", "install", "polly-server"]), (BACK, ["mv", "install", "polly-server"])],
    ids=["both", "back"],
)
def test_the_way_back_from_damage_keeps_the_owner(place: Path, owner: int, heading: str, words: list[str]) -> None:
    """Root follows what the error says, with a backup that belongs to root, and the service can use the data folder."""
    server = OtherServer(place, owner)
    polly_server("backup", "--data", str(server.data), "--to", str(place / "backup"))
    database = server.data / "polly.db"
    database.write_bytes(bytes(4096) + database.read_bytes()[4096:])
    check = [str(BIN / "polly-server"), "check", "--data", str(server.data)]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    way = done.stderr.partition(f"{heading}\n")[2].partition("\nTo ")[0]
    commands = way.replace("…", str(place / "backup")).splitlines()
    assert [each.split()[0] for each in commands] == words, done
    path = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    subprocess.run(["sh", "-c", "\n".join(commands)], check=True, env=path)
    server.everything_is_the_owners()
    server.start()
    server.stop()


@pytest.mark.parametrize("file", ["writer.lock", "polly.db", "journal", "blobs", "uploads"])
def test_a_file_of_root_in_the_folder(place: Path, file: str) -> None:
    """A server that can't write everything does not say that it is up: it names file, owner and command."""
    server = OtherServer(place, NOBODY)
    os.chown(server.data / file, 0, 0)
    done = as_user(NOBODY, "run", "--data", str(server.data), "--listen", server.registry)
    assert (done.returncode, done.stdout) == (1, "")
    line, command = done.stderr.splitlines()
    assert f"nobody may not read {server.data / file}, which belongs to root" in line
    assert command == f"  chown -R nobody: {server.data}"
    assert "damaged" not in line


@pytest.mark.parametrize(
    "command",
    [
        ("run", "--listen", "127.0.0.1:0"),
        ("org", "list"),
        ("org", "create", "--org", "biolab"),
        ("gc",),
        ("check", "--repair"),
        ("usage",),
        ("audit",),
        ("rebuild",),
        ("key", "rotate"),
        ("backup", "--to", "/never/made"),
        ("init", "--org", "biolab", "--email", "bob@b.example", "--password-stdin"),
    ],
    ids=" ".join,
)
def test_a_user_who_may_not(place: Path, command: tuple[str, ...]) -> None:
    """A command of another user says who owns the folder, and how to run it as that user; it changes nothing."""
    server = OtherServer(place, NOBODY)
    before = sorted(server.data.rglob("*"))
    done = as_user(STRANGER, *command, "--data", str(server.data), stdin=new_password())
    assert (done.returncode, done.stdout) == (1, "")
    line, as_owner, other, chown = done.stderr.splitlines()
    assert f"user {STRANGER} may not read {server.data}, which belongs to nobody" in line
    assert as_owner == "  sudo -u nobody polly-server …"
    assert other == f"Or, if the server runs as user {STRANGER}, run as root:"
    assert chown == f"  chown -R {STRANGER} {server.data}"
    assert sorted(server.data.rglob("*")) == before


def test_a_blob_that_may_not_be_read_is_not_damaged(place: Path) -> None:
    """A check with --repair stops and names the file; it sets nothing aside."""
    server = OtherServer(place, NOBODY)
    server.start()
    path = server.push()
    blob = min(server.data.glob("blobs/*/*/*"))
    os.chown(blob, 0, 0)
    done = as_user(NOBODY, "check", "--repair", "--data", str(server.data))
    assert done.returncode == 1
    assert str(blob) in done.stderr
    assert "belongs to root" in done.stderr
    os.chown(blob, NOBODY, NOBODY)
    assert not (server.data / "damaged").exists()
    assert server.pulls(path)
    server.stop()


def test_a_python_that_the_owner_can_not_read(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If Python is below /root, as with pyenv, a message says so, and root stays root."""
    os.chown(place, NOBODY, NOBODY)
    monkeypatch.setattr(os, "access", lambda path, *_, **__: path != os.__file__)
    with pytest.raises(
        Unavailable,
        match=r"belongs to nobody, who can't read the Python that runs it in .*\n  /usr/bin/python3 -m venv",
    ):
        ownership.become(place)
    assert os.geteuid() == 0


def test_a_folder_that_others_can_read_is_closed(place: Path) -> None:
    """A data folder of an earlier version, with files that all may read, is closed with a warning."""
    server = OtherServer(place, NOBODY)
    for found in (server.data, *server.data.rglob("*")):
        found.chmod(0o755 if found.is_dir() else 0o644)
    done = as_user(NOBODY, "org", "list", "--data", str(server.data))
    assert done.returncode == 0
    assert f"Other users could read {server.data}, " in done.stderr
    for found in (server.data, server.data / "polly.db", server.data / "journal", server.data / "writer.lock"):
        assert found.stat().st_mode & 0o077 == 0, found
    assert as_user(NOBODY, "org", "list", "--data", str(server.data)).stderr == ""


def test_a_new_file_is_its_owners_alone(tmp_path: Path) -> None:
    """A new file is private from the first moment, whatever the umask is."""
    with loose_umask():
        ownership.create(tmp_path / "file")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


def test_an_acl_that_opens_every_new_file(place: Path) -> None:
    """A default ACL replaces the umask: the database and its WAL are still private."""
    data = place / "data"
    data.mkdir()
    entries = b"".join(
        tag.to_bytes(2, "little") + mode.to_bytes(2, "little") + b"\xff" * 4
        for tag, mode in ((1, 7), (4, 5), (16, 7), (32, 5))
    )
    os.setxattr(data, "system.posix_acl_default", (2).to_bytes(4, "little") + entries)
    server = Server(data, free_port())
    server.init()
    server.start()
    Person(server.port, server.org, *server.admin).access_token()
    for name in ("polly.db", "polly.db-wal", "polly.db-shm", "writer.lock"):
        assert (data / name).stat().st_mode & 0o077 == 0, name
    server.stop()


def test_a_journal_that_became_roots(place: Path) -> None:
    """Each command names the folder, its owner and what to do; none reports damage or skips the journal."""
    server = OtherServer(place, NOBODY)
    os.chown(server.data / "journal", 0, 0)
    for command in (("check",), ("gc", "--dry-run"), ("gc",), ("usage",), ("audit",), ("backup", "--to", "/never")):
        done = as_user(NOBODY, *command, "--data", str(server.data))
        assert (done.returncode, done.stdout) == (1, ""), command
        line, chown = done.stderr.splitlines()
        assert f"nobody may not read {server.data / 'journal'}, which belongs to root" in line
        assert line.endswith(". Run as root:")
        assert chown == f"  chown -R nobody: {server.data}"


def test_a_key_that_the_server_may_not_read(place: Path) -> None:
    """The error says that the key can't be read, and how to let the group read it, not to run the server as root."""
    server = OtherServer(place, NOBODY)
    certificate(place, 30)
    key = place / "key.pem"
    key.chmod(0o600)
    tls = ("--tls-cert", str(place / "cert.pem"), "--tls-key", str(key))
    done = as_user(NOBODY, "run", "--data", str(server.data), "--listen", server.registry, *tls)
    assert (done.returncode, done.stdout) == (1, "")
    line, command = done.stderr.splitlines()
    assert f"The key {key} can't be read: nobody may not read {key}, which belongs to root (mode 0600" in line
    assert line.endswith(". Run as root:")
    assert "chmod 640" in command
    subprocess.run(["sh", "-c", command], check=True)
    (place / "cert.pem").unlink()
    done = as_user(NOBODY, "run", "--data", str(server.data), "--listen", server.registry, *tls)
    assert f"The certificate {place / 'cert.pem'} can't be read: No such file" in done.stderr


def test_a_renewed_key_that_the_server_may_not_read(place: Path) -> None:
    """The log says so for each new file, in a few seconds, and the server takes it once its group may read it."""
    server = OtherServer(place, NOBODY)
    key = place / "key.pem"

    def renewed(mode: int) -> int:
        serial = certificate(place, 30)
        os.chown(key, 0, NOBODY)
        key.chmod(mode)
        return serial

    def refusals() -> int:
        return server.log.read_text().count(f"The key {key} can't be read: nobody may not read {key}")

    renewed(0o640)
    server.options = ("--tls-cert", str(place / "cert.pem"), "--tls-key", str(key))
    server.start()
    renewed(0o600)
    until(lambda: refusals() == 1, "it is not refused")
    serial = renewed(0o600)
    until(lambda: refusals() == 2, "the next one is not refused")
    key.chmod(0o640)
    until(lambda: shown(server.port) == serial, "the key is not taken once it can be read")
    server.stop()


@pytest.mark.parametrize("command", ["init", "run", "usage"])
def test_a_folder_that_can_not_be_looked_into_gets_no_new_database(place: Path, owner: int, command: str) -> None:
    """There may be blobs of a database that was lost. The message names the folder and what gives access to it."""
    data = place / "data"
    data.mkdir(mode=0o700)
    (data / "blobs" / "sha256").mkdir(parents=True)
    (data / "blobs").chmod(0o700)
    os.chown(data, owner, owner)
    more = ("--org", "acme", "--email", "ann@acme.example", "--password-stdin") if command == "init" else ()
    done = as_user(owner, command, "--data", str(data), *more, stdin=new_password())
    assert (done.returncode, done.stdout) == (1, "")
    assert f"may not read {data / 'blobs'}, which belongs to root" in done.stderr
    assert "chown -R" in done.stderr
    assert not (data / "polly.db").exists()
