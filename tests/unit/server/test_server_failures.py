"""polly-server with a folder, file or setting that it cannot use: one line on stderr, exit 1, and nothing changed."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

import pysqlite3.dbapi2 as sqlite
import pytest

from support.server import BIN, polly_server

if TYPE_CHECKING:
    from pathlib import Path

PASSWORD = "a good password"
COMMANDS = {
    "run": ("run", "--listen", "127.0.0.1:0"),
    "backup": ("backup", "--to", "{data}.backup"),
    "org list": ("org", "list"),
    "org create": ("org", "create", "--org", "biolab"),
    "org update": ("org", "update", "--org", "acme", "--create-on-push"),
    "user add": ("user", "add", "--org", "acme", "--email", "b@b.example", "--role", "reader", "--password-stdin"),
    "user set-role": ("user", "set-role", "--org", "acme", "--email", "ann@acme.example", "--role", "admin"),
    "user remove": ("user", "remove", "--org", "acme", "--email", "ann@acme.example"),
    "user reset-password": ("user", "reset-password", "--email", "ann@acme.example", "--password-stdin"),
    "init": ("init", "--org", "new", "--email", "ann@acme.example", "--password-stdin"),
}


def run(
    command: str, data: Path, stdin: bytes = PASSWORD.encode(), environment: dict[str, str] | None = None
) -> tuple[int, str]:
    """Exit code and stderr of a command on a data folder."""
    words = [word.replace("{data}", str(data)) for word in COMMANDS[command]]
    done = subprocess.run(
        [str(BIN / "polly-server"), *words, "--data", str(data)],
        input=stdin,
        capture_output=True,
        check=False,
        timeout=60,
        env={**os.environ, **(environment or {})},
    )
    return done.returncode, done.stderr.decode()


def refusal(outcome: tuple[int, str], wanted: int = 1) -> str:
    """Fail unless the output is one line, with commands to paste below it; returns all."""
    code, err = outcome
    assert code == wanted, err
    first, *commands = err.splitlines()
    assert first.startswith("Error: ")
    assert all(line.startswith("  polly-server ") for line in commands), err
    return err


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The database of a new registry, as the bytes of its file."""
    data = tmp_path_factory.mktemp("template") / "data"
    polly_server("init", "--data", str(data), "--org", "acme", "--email", "ann@acme.example", "--password-stdin",
                 stdin=PASSWORD)  # fmt: skip
    with contextlib.closing(sqlite.connect(data / "polly.db")) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    return (data / "polly.db").read_bytes()


@pytest.mark.parametrize("command", ["init", "run", "backup", "org list", "user add"])
def test_a_database_that_is_none(tmp_path: Path, command: str) -> None:
    """A polly.db that is not a database is named in one line, and does not change."""
    content = b"This is a letter to somebody, and no database. " * 100
    (tmp_path / "polly.db").write_bytes(content)
    assert str(tmp_path) in refusal(run(command, tmp_path))
    assert (tmp_path / "polly.db").read_bytes() == content


@pytest.mark.parametrize("command", ["backup", "org create", "user reset-password"])
def test_a_database_without_tables(tmp_path: Path, command: str) -> None:
    """An empty polly.db is not a registry, and a maintenance command does not make it one."""
    (tmp_path / "polly.db").touch()
    assert str(tmp_path) in refusal(run(command, tmp_path))
    with contextlib.closing(sqlite.connect(tmp_path / "polly.db")) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_of_a_newer_version(tmp_path: Path, template: bytes, command: str) -> None:
    """No command writes into a data folder of a newer version, or copies it as if it knew it."""
    (tmp_path / "polly.db").write_bytes(template)
    (tmp_path / "server.lock").touch()  # otherwise it is a backup
    with contextlib.closing(sqlite.connect(tmp_path / "polly.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    before = dump(tmp_path)
    assert "newer version of polly-server (revision 9999)" in refusal(run(command, tmp_path))
    assert dump(tmp_path) == before


def dump(folder: Path) -> list[object]:
    """The rows that a command might change."""
    with contextlib.closing(sqlite.connect(folder / "polly.db")) as connection:
        return [
            connection.execute("SELECT * FROM organisations").fetchall(),
            connection.execute("SELECT * FROM members").fetchall(),
            connection.execute("SELECT * FROM users").fetchall(),
        ]


@pytest.mark.parametrize(
    ("command", "password", "code"),
    [
        ("init", b"\xff\xfe12345678", 2),
        ("user add", b"short", 2),
        ("user reset-password", b"", 2),
        ("user add", b"\n", 2),
    ],
)
def test_passwords_that_are_none(tmp_path: Path, template: bytes, command: str, password: bytes, code: int) -> None:
    """A password that is not text, too short or empty is refused in one line, and nothing is changed."""
    (tmp_path / "polly.db").write_bytes(template)
    (tmp_path / "server.lock").touch()  # otherwise it is a backup
    before = dump(tmp_path)
    assert "password" in refusal(run(command, tmp_path, password), code).lower()
    assert dump(tmp_path) == before


@pytest.mark.parametrize("command", ["backup", "org list", "user remove"])
def test_a_folder_without_a_registry(tmp_path: Path, command: str) -> None:
    """The error says how to name the right folder, and nothing is created."""
    assert "name its folder with --data DIR" in refusal(run(command, tmp_path / "absent"))
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way(tmp_path: Path) -> None:
    """A file is where the data folder, or a folder above it, should be."""
    (tmp_path / "file").write_text("in the way")
    for data in (tmp_path / "file", tmp_path / "file" / "below"):
        assert f"{tmp_path / 'file'} is a file. Give a folder." in refusal(run("init", data))
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"POLLY_WORKERS": "many"}, "POLLY_WORKERS is 'many'"),
        ({"POLLY_PUBLIC_URL": "registry.example"}, "POLLY_PUBLIC_URL is 'registry.example'"),
        ({"POLLY_CONFIG": "/no/such/file.toml"}, "/no/such/file.toml can't be read"),
        ({"POLLY_TLS_CERT": "/c.pem"}, "give --tls-cert"),
        ({"POLLY_METRICS_LISTEN": "nowhere.invalid:1"}, "nowhere.invalid:1"),
    ],
)
def test_settings_that_are_none(tmp_path: Path, template: bytes, environment: dict[str, str], said: str) -> None:
    """If a setting cannot be used, run names it and its source, and exits."""
    (tmp_path / "polly.db").write_bytes(template)
    (tmp_path / "server.lock").touch()  # otherwise it is a backup
    code = 1 if "POLLY_METRICS_LISTEN" in environment else 2
    assert said in refusal(run("run", tmp_path, environment=environment), code)


@pytest.mark.parametrize(
    "words",
    [
        ("init",),
        ("org", "create"),
        ("user", "add", "--org", "acme"),
        ("user", "set-role"),
        ("user", "fly"),
        ("fly",),
        ("run", "--fly"),
        ("org", "list", "more"),
    ],
)
def test_wrong_usage(words: tuple[str, ...]) -> None:
    """Exit 2, one line on stderr that says where the help is, nothing on stdout."""
    done = subprocess.run([str(BIN / "polly-server"), *words], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert (line.startswith("Error: "), "See polly-server" in line) == (True, True), line
