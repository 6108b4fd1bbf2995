"""polly-server as a process: what it makes, what it refuses, and how it ends."""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import http.client
import json
import os
import socket
import subprocess
from typing import TYPE_CHECKING

import pysqlite3.dbapi2 as sqlite
import pytest

from polly_dockers.config import Config
from polly_dockers.errors import Unavailable
from polly_dockers.server import startup
from support.server import BIN, Server, free_port, new_password, polly_server, running_server

if TYPE_CHECKING:
    from pathlib import Path

REVISION = "9999"


def refused(*arguments: str, stdin: str = "", code: int = 1) -> str:
    """What a command says that has to fail: one line on stderr and commands below it, nothing on stdout."""
    done = subprocess.run(
        [str(BIN / "polly-server"), *arguments], input=stdin, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert "Traceback" not in done.stderr
    if code == 1:
        assert all(line.startswith("  ") for line in done.stderr.splitlines()[1:]), done.stderr  # commands to paste
    return done.stderr


def rows(folder: Path, query: str) -> list[tuple[object, ...]]:
    """Rows of a data folder's database."""
    with contextlib.closing(sqlite.connect(folder / "polly.db")) as connection:
        return list(connection.execute(query).fetchall())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with the organisation acme and its admin."""
    server = Server(tmp_path / "data", free_port())
    server.init()
    return server.data


def test_init_makes_an_organisation_and_its_admin(data: Path) -> None:
    """After init the organisation has one member, an admin, and the folder is for its owner alone."""
    assert "acme" in polly_server("org", "list", "--data", str(data))
    assert rows(data, "SELECT email, role FROM members JOIN users ON users.id = user_id") == [("ann@acme.example", 3)]
    assert data.stat().st_mode & 0o777 == 0o700


def test_init_again_changes_nothing(data: Path) -> None:
    """An organisation that is there already is not made again, and keeps its admin."""
    before = rows(data, "SELECT * FROM users")
    said = refused(
        *("init", "--data", str(data), "--org", "acme", "--email", "eve@acme.example", "--password-stdin"),
        stdin=new_password(),
    )
    assert "There is already an organisation acme" in said
    assert rows(data, "SELECT * FROM users") == before


@pytest.mark.parametrize(
    ("org", "email", "password", "said"),
    [
        ("Acme", "ann@acme.example", "long enough", "lower-case"),
        ("a/b", "ann@acme.example", "long enough", "not a valid name of an organisation"),
        ("acme", "ann", "long enough", "not a valid email address"),
        ("acme", "ann@acme.example", "short", "8 to 1024 characters"),
        ("acme", "ann@acme.example", "tab\tin between", "has control characters"),
    ],
)
def test_init_refuses(tmp_path: Path, org: str, email: str, password: str, said: str) -> None:
    """A wrong name, email or password makes nothing."""
    arguments = ("init", "--data", str(tmp_path / "data"), "--org", org, "--email", email, "--password-stdin")
    assert said in refused(*arguments, stdin=password, code=2)
    assert not (tmp_path / "data").exists()


def test_a_missing_option_is_wrong_usage() -> None:
    """Without --org, init ends with 2 and names it."""
    assert "--org" in refused("init", "--email", "ann@acme.example", code=2)


def test_a_password_is_not_waited_for_without_a_terminal(data: Path) -> None:
    """Without a terminal and without --password-stdin, it ends with 2 and names the option."""
    said = refused("user", "reset-password", "--data", str(data), "--email", "ann@acme.example", code=2)
    assert "--password-stdin" in said


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            ("user", "add", "--org", "nobody", "--email", "bob@acme.example", "--role", "reader"),
            "polly-server org list",
        ),
        (("user", "add", "--org", "acme", "--email", "bob", "--role", "reader"), "not a valid email address"),
        (("user", "reset-password", "--email", "bob@acme.example"), "polly-server user list"),
    ],
)
def test_nothing_is_asked_for_what_cannot_be_done(data: Path, command: tuple[str, ...], said: str) -> None:
    """An unknown organisation, email or user is refused before a password is asked for."""
    assert said in refused(*command, "--data", str(data), code=2 if said == "not a valid email address" else 1)


def test_users_are_listed(data: Path) -> None:
    """list: the emails with the role in each organisation, of one or of all, and who has no password."""
    there = ("--data", str(data))

    def lines(*command: str) -> list[str]:
        return [" ".join(line.split()) for line in polly_server(*command).splitlines()[1:]]

    to = ("--email", "bob@acme.example", "--reset-password", "--password-stdin")
    polly_server("org", "create", *there, "--org", "biolab")
    for org, role in (("acme", "reader"), ("biolab", "admin")):
        polly_server("user", "add", *there, *to, "--org", org, "--role", role, stdin=new_password())
    ann = "ann@acme.example acme admin set"
    bob = "bob@acme.example acme reader, biolab admin set"
    assert lines("user", "list", *there) == [ann, bob]
    assert lines("user", "list", *there, "--org", "biolab") == ["bob@acme.example biolab admin set"]
    of_bob = {"email": "bob@acme.example", "roles": [{"organisation": "biolab", "role": "admin"}], "has_password": True}
    assert json.loads(polly_server("user", "list", *there, "--org", "biolab", "--output", "json")) == [of_bob]
    assert "polly-server org list" in refused("user", "list", *there, "--org", "nobody")
    polly_server("user", "remove", *there, "--email", "bob@acme.example", "--org", "acme", "--yes")
    polly_server("org", "delete", *there, "--org", "biolab", "--yes")
    assert lines("user", "list", *there) == [
        "ann@acme.example acme admin set",
        "bob@acme.example in no organisation set",
    ]


def test_users_are_added_changed_and_removed(data: Path) -> None:
    """A user gets a role, another role, and is taken out; the last admin stays."""
    to = ("--data", str(data), "--org", "acme", "--email", "bob@acme.example")
    polly_server("user", "add", *to, "--role", "reader", "--password-stdin", stdin=new_password())
    assert "already" in refused("user", "add", *to, "--role", "reader", "--password-stdin", stdin=new_password())
    polly_server("user", "set-role", *to, "--role", "writer")
    assert ("bob@acme.example", 2) in rows(data, "SELECT email, role FROM members JOIN users ON users.id = user_id")
    assert "choose reader, writer or admin" in refused("user", "set-role", *to, "--role", "king", code=2)
    unasked = refused("user", "remove", *to, code=2)
    assert "removes bob@acme.example from acme" in unasked
    assert "Nobody was removed. To remove without a question, add --yes." in unasked
    assert ("bob@acme.example", 2) in rows(data, "SELECT email, role FROM members JOIN users ON users.id = user_id")
    assert "bob@acme.example is not a member of acme any more." in polly_server("user", "remove", *to, "--yes")
    assert "not a member" in refused("user", "remove", *to)
    assert "not a member" in refused("user", "remove", *to, "--yes")
    ann = ("--data", str(data), "--org", "acme", "--email", "ann@acme.example")
    assert "only admin" in refused("user", "remove", *ann)
    assert "only admin" in refused("user", "remove", *ann, "--yes")
    assert "only admin" in refused("user", "set-role", *ann, "--role", "reader")


def test_an_organisation_is_changed(data: Path) -> None:
    """create-on-push is switched on and off; an organisation that is not there is named."""
    polly_server("org", "update", "--data", str(data), "--org", "acme", "--create-on-push")
    [found] = json.loads(polly_server("org", "list", "--data", str(data), "--output", "json"))
    assert (found["slug"], found["members"], found["create_on_push"]) == ("acme", 1, True)
    assert polly_server("org", "list", "--data", str(data)).splitlines()[1].split()[-1] == "yes"
    polly_server("org", "update", "--data", str(data), "--org", "acme", "--no-create-on-push")
    assert polly_server("org", "list", "--data", str(data)).splitlines()[1].split()[-1] == "no"
    assert "polly-server org list" in refused("org", "update", "--data", str(data), "--org", "no", "--create-on-push")


def test_run_without_a_registry_says_how_to_make_one(tmp_path: Path) -> None:
    """A folder without a registry is not made by run."""
    assert "polly-server init" in refused("run", "--data", str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_a_port_in_use(data: Path) -> None:
    """One line names the address and the option."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        said = refused("run", "--data", str(data), "--listen", address)
    assert f"Can't listen on {address}" in said
    assert "--listen" in said


def test_a_port_of_root(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error for a user who may not use a port below 1024 names what allows it."""

    def bind(_socket: socket.socket, _address: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", bind)
    with pytest.raises(Unavailable, match="run it as root, or with CAP_NET_BIND_SERVICE"):
        startup.check_address(Config(data=data, listen="127.0.0.1:443"))
    with pytest.raises(Unavailable, match=r"Choose another address with --listen HOST:PORT\.$"):
        startup.check_address(Config(data=data, listen="127.0.0.1:5000"))


def test_a_second_server_on_a_folder(tmp_path: Path) -> None:
    """It starts, and its log warns that another one runs there; the first one has no such line."""
    with running_server(tmp_path) as server:
        assert "another server runs" not in server.log.read_text()
        second = Server(server.data, free_port())
        second.start()
        try:
            assert "another server runs on the same data folder" in second.log.read_text()
        finally:
            second.stop()


def test_a_port_in_use_makes_no_demo(tmp_path: Path) -> None:
    """The first start of a demo on a port in use makes nothing, so that the next one prints the password."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        refused("run", "--demo", "--data", str(tmp_path / "data"), "--listen", address)
    assert not (tmp_path / "data").exists()


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    """A file where the data folder should be: one line says so."""
    (tmp_path / "data").write_text("")
    arguments = ("init", "--data", str(tmp_path / "data"), "--org", "acme", "--email", "ann@acme.example")
    assert "is a file. Give a folder." in refused(*arguments, "--password-stdin", stdin=new_password())


@pytest.mark.parametrize("command", ["init", "restore"])
def test_a_folder_of_other_files(data: Path, tmp_path: Path, command: str) -> None:
    """A folder with files of something else is refused and stays as it is; lost+found of a disk does not matter."""
    polly_server("backup", "--data", str(data), "--to", str(tmp_path / "backup"))
    others = tmp_path / "others"
    others.mkdir(mode=0o755)
    (others / "api.md").touch()
    words: tuple[str, ...] = ("restore", "--from", str(tmp_path / "backup"))
    stdin = ""
    if command == "init":
        words, stdin = ("init", "--org", "b", "--email", "eve@b.example", "--password-stdin"), new_password()
    assert "holds api.md, which is not part of a registry" in refused(*words, "--data", str(others), stdin=stdin)
    assert [each.name for each in others.iterdir()] == ["api.md"]
    assert others.stat().st_mode & 0o777 == 0o755
    (others / "api.md").unlink()
    (others / "lost+found").mkdir()
    polly_server(*words, "--data", str(others), stdin=stdin)


@pytest.mark.parametrize("inside", ["", "below"])
def test_a_file_instead_of_a_folder(data: Path, tmp_path: Path, inside: str) -> None:
    """Commands that make or read a folder say that there is a file."""
    polly_server("backup", "--data", str(data), "--to", str(tmp_path / "backup"))
    (tmp_path / "file").touch()
    place = str(tmp_path / "file" / inside)
    said = f"Error: {tmp_path / 'file'} is a file. Give a folder.\n"
    assert refused("restore", "--from", str(tmp_path / "backup"), "--data", place) == said
    assert refused("backup", "--data", str(data), "--to", place) == said
    assert refused("check", "--data", place) == said


def test_a_folder_of_a_newer_version(data: Path) -> None:
    """A database of a newer revision is refused, and stays as it is."""
    with contextlib.closing(sqlite.connect(data / "polly.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (REVISION,))
        connection.commit()
    said = refused("run", "--data", str(data), "--listen", f"127.0.0.1:{free_port()}")
    assert f"newer version of polly-server (revision {REVISION})" in said
    assert rows(data, "SELECT version_num FROM alembic_version") == [(REVISION,)]


def test_a_certificate_that_is_none(data: Path, tmp_path: Path) -> None:
    """A certificate that can't be read is named before anything listens."""
    (tmp_path / "cert.pem").write_text("none")
    pair = ("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "cert.pem"))
    assert "cert.pem" in refused("run", "--data", str(data), "--listen", f"127.0.0.1:{free_port()}", *pair)


class Pusher:
    """A client that sends an upload slowly, in its own time."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        basic = base64.b64encode(":".join(server.admin).encode()).decode()
        self._ask("POST", "/api/v1/tokens", {"Authorization": f"Basic {basic}"}, b'{"scope": "full"}')
        full = json.loads(self.body)["token"]
        repository = b'{"name": "slow", "description": "made by a test"}'
        self._ask("POST", "/api/v1/organisations/acme/repositories", {"Authorization": f"Bearer {full}"}, repository)
        self._ask("GET", "/token?scope=repository:acme/slow:pull,push", {"Authorization": f"Basic {basic}"})
        self.bearer = {"Authorization": f"Bearer {json.loads(self.body)['token']}"}

    def _ask(self, method: str, path: str, headers: dict[str, str], body: bytes | None = None) -> None:
        self.connection.request(method, path, body, {"Content-Type": "application/json", **headers})
        answer = self.connection.getresponse()
        self.status, self.body = answer.status, answer.read()

    def begin(self, digest: str, length: int) -> None:
        """Send the head of a push in one request, none of its body yet, and wait until the server asks for it."""
        self.connection.putrequest("POST", f"/v2/acme/slow/blobs/uploads/?digest={digest}")
        for name, value in {**self.bearer, "Content-Length": str(length), "Expect": "100-continue"}.items():
            self.connection.putheader(name, value)
        self.connection.endheaders()
        assert self.connection.sock.recv(1 << 16).startswith(b"HTTP/1.1 100 ")

    def end(self, content: bytes) -> int:
        """Send the body; the status of the answer."""
        self.connection.send(content)
        answer = http.client.HTTPResponse(self.connection.sock, method="POST")
        answer.begin()
        answer.read()
        self.connection.close()
        return answer.status


def test_sigterm_lets_an_upload_end(tmp_path: Path) -> None:
    """An upload that is under way when the server is stopped is answered 201, and is there after a restart."""
    content = os.urandom(100_000)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    with running_server(tmp_path) as server:
        pusher = Pusher(server)
        pusher.begin(digest, len(content))
        assert server.process is not None
        server.process.terminate()
        refuses_connections(server.port)
        assert pusher.end(content) == 201
        assert server.process.wait(timeout=60) == 0
        server.stop()
        server.start()
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("GET", f"/v2/acme/slow/blobs/{digest}", headers=pusher.bearer)
        assert connection.getresponse().read() == content
        connection.close()


def refuses_connections(port: int) -> None:
    """Wait until nobody listens on the port any more: each try is an answer by the kernel."""
    for _ in range(100_000):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            return
    pytest.fail("the server goes on listening")


def test_a_backup_takes_the_place_of_none_of_another_registry(tmp_path: Path) -> None:
    """It is refused, whoever else has users and images of the same numbers, and the backup stays as it is."""
    copy = tmp_path / "copy"
    data = {org: tmp_path / org for org in ("acme", "globex")}
    for org, folder in data.items():
        place = ("--data", str(folder), "--org", org, "--email", f"ann@{org}.example", "--password-stdin")
        polly_server("init", *place, stdin=new_password())
    polly_server("backup", "--data", str(data["acme"]), "--to", str(copy))
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    assert "the backup of another registry" in refused("backup", "--data", str(data["globex"]), "--to", str(copy))
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before
    polly_server("org", "create", "--data", str(data["acme"]), "--org", "more")
    polly_server("backup", "--data", str(data["acme"]), "--to", str(copy))


def test_a_backup_is_a_data_folder(tmp_path: Path) -> None:
    """A backup made while the server runs starts as a server; a second one copies what is new."""
    content = os.urandom(1000)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    copy = tmp_path / "copy"
    with running_server(tmp_path) as server:
        pusher = Pusher(server)
        assert "0 blobs" in polly_server("backup", "--data", str(server.data), "--to", str(copy))
        pusher.begin(digest, len(content))
        assert pusher.end(content) == 201
        assert "Copied 1 blob (1.0 kB)" in polly_server("backup", "--data", str(server.data), "--to", str(copy))
        assert "; 1 blob was there already." in polly_server("backup", "--data", str(server.data), "--to", str(copy))
        inside = server.data / "copy"
        assert "can't lie in the data folder" in refused("backup", "--data", str(server.data), "--to", str(inside))
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.txt").write_text("not yours")
        said = refused("backup", "--data", str(server.data), "--to", str(tmp_path / "mine"))
        assert "thesis.txt" in said
        assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    restored = Server(copy, server.port, admin=server.admin)
    restored.start()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", f"/v2/acme/slow/blobs/{digest}", headers=pusher.bearer)
    assert connection.getresponse().read() == content
    connection.close()
    restored.stop()
    assert "is the data folder of a server" in refused("backup", "--data", str(server.data), "--to", str(copy))
