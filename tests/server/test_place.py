"""Which data folder the operator's commands use, and which one the commands that they print name."""

from __future__ import annotations

import http.client
import os
import shlex
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from failures.test_signals import until
from support.server import BIN, Server, ending, free_port, running_server
from support.wire_client import Person

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the organisation acme and its admin."""
    server = Server(tmp_path_factory.mktemp("place") / "data", free_port())
    server.init()
    return server.data


def run(place: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run polly-server in a folder, with only these variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("POLLY_")}
    return subprocess.run(
        [BIN / "polly-server", *arguments],
        cwd=place,
        env=kept | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def status(port: int, path: str, authorization: str = "") -> int:
    """The status of a GET; 0 if nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path, headers={"Authorization": authorization} if authorization else {})
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def test_the_folder_of_the_settings_file(data: Path, tmp_path: Path) -> None:
    """POLLY_CONFIG or --config names it for every command; POLLY_DATA and --data win over it."""
    settings = tmp_path / "polly.toml"
    settings.write_text(f'data = "{data}"\n')
    config = {"POLLY_CONFIG": str(settings)}
    for command in (("org", "list"), ("user", "list"), ("key", "list"), ("usage",), ("audit",)):
        assert run(tmp_path, *command, **config).returncode == 0, command
    assert run(tmp_path, "gc", "--dry-run", "--config", str(settings)).returncode == 0
    assert run(tmp_path, "check", "--config", str(settings)).returncode == 0
    done = run(tmp_path, "org", "list", **config, POLLY_DATA="elsewhere")
    assert f"There is no registry in {tmp_path}/elsewhere" in done.stderr
    done = run(tmp_path, "org", "list", "--data", "given", **config, POLLY_DATA="elsewhere")
    assert f"There is no registry in {tmp_path}/given" in done.stderr
    done = run(tmp_path, "org", "list", POLLY_CONFIG="none.toml")
    assert (done.returncode, done.stdout) == (2, "")
    assert "The settings file none.toml can't be read: No such file" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["polly.toml"]


def test_no_folder_was_given(tmp_path: Path) -> None:
    """The error says how to name a folder. Only a command that changes something says how to create a registry."""
    done = run(tmp_path, "org", "list")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"There is no registry in {tmp_path}/data." in done.stderr
    assert "--data DIR" in done.stderr
    assert "POLLY_CONFIG" in done.stderr
    assert "polly-server init" not in done.stderr
    assert "polly-server init --data data" in run(tmp_path, "org", "create", "acme").stderr


def test_printed_commands_name_the_same_folder(data: Path, tmp_path: Path) -> None:
    """A command that was given --data prints commands and errors with it, quoted for the shell."""
    spaced = tmp_path / "of all"
    spaced.symlink_to(data)
    place = ("--data", str(spaced))
    same = f"--data {shlex.quote(str(spaced))}"
    done = run(tmp_path, "org", "create", "biolab", *place)
    assert f"polly-server user add {same} --org biolab" in done.stdout
    done = run(tmp_path, "org", "delete", "biolab", "--yes", *place)
    assert f"polly-server org restore {same} --org biolab" in done.stdout
    assert run(tmp_path, "org", "restore", "biolab", *place).returncode == 0
    done = run(tmp_path, "user", "add", "bob@b.example", "--org", "none", "--role", "reader", *place)
    assert f"polly-server org list {same}" in done.stderr
    done = run(tmp_path, "user", "reset-password", "bob@b.example", *place)
    assert f"polly-server user list {same}" in done.stderr
    done = run(tmp_path, "user", "reset-password", "bob@b.example", POLLY_DATA=str(data))
    assert "--data" not in done.stderr


def test_tokens_are_ended(tmp_path: Path) -> None:
    """For one user or for all, access tokens are refused at once, and passwords stay. One of the two must be given."""
    with running_server(tmp_path / "data") as server:
        ann, place = Person(server.port, server.org, *server.admin), ("--data", str(server.data))

        def works(secret: str) -> bool:
            return status(server.port, "/api/v1/tokens", f"Bearer {secret}") == 200

        email = server.admin[0]
        for which in ((email,), ("--email", email), (email, "--email", email), ("--all",)):
            secret = ann.access_token()
            assert works(secret)
            done = run(tmp_path, "user", "revoke-tokens", *which, *place)
            assert (done.returncode, done.stderr) == (0, "")
            assert "ended" in done.stdout
            assert not works(secret)
        assert "token-revoke" in run(tmp_path, "audit", "--event", "token-revoke", *place).stdout
        assert run(tmp_path, "user", "revoke-tokens", *place).returncode == 2
        assert run(tmp_path, "user", "revoke-tokens", "--all", email, *place).returncode == 2
        assert run(tmp_path, "user", "revoke-tokens", "--all", "--email", email, *place).returncode == 2
        assert run(tmp_path, "user", "revoke-tokens", "eve@acme.example", "--email", email, *place).returncode == 2


def test_a_clash_of_the_metrics_port(data: Path, tmp_path: Path) -> None:
    """The error names the option of that address."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        place = ("--data", str(data), "--listen", f"127.0.0.1:{free_port()}")
        done = run(tmp_path, "run", *place, "--metrics-listen", address)
    assert done.returncode == 1
    assert f"Can't listen on {address}" in done.stderr
    assert "with --metrics-listen HOST:PORT" in done.stderr


@pytest.mark.parametrize(("form", "said"), [("json", False), ("text", True)])
def test_a_log_in_one_file_with_stdout(data: Path, tmp_path: Path, form: str, *, said: bool) -> None:
    """If stdout and a JSON log are the same file, each line is JSON: the log says that the server is up."""
    listen = f"127.0.0.1:{free_port()}"
    command = [str(BIN / "polly-server"), "run", "--data", str(data), "--listen", listen, "--log-format", form]
    log = tmp_path / "log"
    with (
        log.open("w") as writing,
        ending(subprocess.Popen(command, stdout=writing, stderr=subprocess.STDOUT)) as process,
    ):
        until(lambda: status(int(listen.partition(":")[2]), "/healthz") == 200, "it does not answer")
        process.terminate()
        process.wait(60)
    assert ("Ctrl-C ends it" in log.read_text()) is said
