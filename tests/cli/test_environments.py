"""The environments that people have: locales, no home folder, closed descriptors, odd variables, a read-only disk."""

from __future__ import annotations

import json
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from cli.people import HELPER, POLLY, SECONDS, Server, User, environment
from support.server import BIN, ending, free_port

if TYPE_CHECKING:
    from pathlib import Path

DESCRIPTION = "für Ωmega 漢字 \u202e \x7f 🙂"
ENCODINGS = ("latin-1", "ascii:strict", "utf-16")
SOMEBODY = ["unshare", "--user", "--map-user=12345", "--map-group=12345"]
"""A user without an entry in /etc/passwd, to whom the files of the test belong."""


@pytest.fixture(scope="module")
def max_(server: Server, tools: Path, tmp_path_factory: pytest.TempPathFactory) -> User:
    """Return a signed-in admin, who has a docker repository with letters that few locales can show."""
    home = tmp_path_factory.mktemp("max")
    org, (email, password) = server.new_org()
    user = User(home, email, password, environment(home, tools) | {"TEST_ORG": org})
    user.login(server)
    user.ok("dockers", "create", "--name", "hello", "--description", DESCRIPTION.replace("\x7f", ""))
    return user


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_is_json_in_every_locale(max_: User, server: Server, encoding: str) -> None:
    """The JSON of polly, the helper and polly-server is ASCII, so it reads the same in every encoding."""
    commands = [
        [*POLLY, "dockers", "list", "--output", "json"],
        [*POLLY, "whoami", "--output", "json"],
        [*POLLY, "members", "list", "--output", "json"],
        [*POLLY, "audit", "list", "--output", "json"],
        [*POLLY, "dockers", "trash", "--output", "json"],
        [*HELPER, "list"],
        [str(BIN / "polly-server"), "usage", "--data", str(server.data), "--output", "json"],
    ]
    for command in commands:
        env = max_.env | {"PYTHONIOENCODING": encoding, "LC_ALL": "C"}
        done = subprocess.run(command, env=env, capture_output=True, check=True, timeout=SECONDS)
        assert done.stdout.isascii()
        found = json.loads(done.stdout.decode("ascii"))
        if "dockers" in command and "list" in command:
            assert found[0]["description"] == DESCRIPTION.replace("\x7f", "")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_people_read_never_ends_a_command(max_: User, server: Server, encoding: str) -> None:
    """Letters that the locale cannot show are escaped, in tables, help and errors, also of polly-server."""
    for command, code in (
        ([*POLLY, "dockers", "list"], 0),
        ([*POLLY, "--help"], 0),
        ([*POLLY, "dockers", "list", "--org", "x\u0142y"], 1),
        ([str(BIN / "polly-server"), "org", "create", "--data", str(server.data), "--org", "\u0142"], 1),
        ([str(BIN / "polly-server"), "org", "list", "--data", str(server.data)], 0),
    ):
        env = max_.env | {"PYTHONIOENCODING": encoding}
        done = subprocess.run(command, env=env, capture_output=True, check=False, timeout=SECONDS)
        assert min(done.returncode, 1) == code, done.stderr
        assert b"Traceback" not in done.stderr
        assert b"UnicodeEncode" not in done.stderr


@pytest.fixture(scope="module")
def without_home(max_: User, server: Server) -> User:
    """Return a user without HOME and without an entry in /etc/passwd, but with a token in the environment."""
    env = {name: value for name, value in max_.env.items() if name != "HOME"}
    return User(max_.home, env=env | {"POLLY_SERVER": server.url, "POLLY_TOKEN": max_.token()})


def test_without_a_home_a_token_is_enough(without_home: User, server: Server, tmp_path: Path) -> None:
    """Under any user id in a container, commands, docker login and the helper work; configure uses DOCKER_CONFIG."""
    user, somebody = without_home, SOMEBODY
    assert user.run(*somebody, *POLLY, "dockers", "list").code == 0
    assert "polly_" in user.run(*somebody, *POLLY, "dockers", "login").out
    assert "Secret" in user.run(*somebody, *HELPER, "get", stdin=server.registry).out
    assert user.run(*somebody, *HELPER, "erase", stdin=server.registry).code == 0
    done = user.run(*somebody, *POLLY, "dockers", "configure", DOCKER_CONFIG="/proc/x")
    assert (done.code, len(done.err.splitlines())) == (1, 1)
    done = user.run(*somebody, *POLLY, "dockers", "configure", DOCKER_CONFIG=f"{tmp_path}/docker")
    assert done.code == 0, done.err


@pytest.mark.parametrize("home", [None, "", "not/absolute"])
def test_without_a_home_the_line_says_what_to_set(without_home: User, server: Server, home: str | None) -> None:
    """A command that needs a file prints one line with the variable to set, and no name of an exception."""
    env = {} if home is None else {"HOME": home}
    commands: list[tuple[list[str], str, str]] = [
        ([*POLLY, "dockers", "configure"], "", "DOCKER_CONFIG"),
        ([*POLLY, "login", "--email", "a@b.example", "--password-stdin"], "long enough", "XDG_CONFIG_HOME"),
    ]
    for command, stdin, variable in commands:
        done = without_home.run(*SOMEBODY, *command, stdin=stdin, **env)
        assert (done.code, done.out) == (1, "")
        [line] = done.err.splitlines()
        assert f"Set HOME or {variable} to a folder" in line
        assert "user 12345 is not in /etc/passwd" in line
    done = without_home.run(*SOMEBODY, *HELPER, "get", stdin=server.registry, POLLY_TOKEN="", **env)
    assert (done.code, "Set HOME or XDG_CONFIG_HOME" in done.out) == (1, True)


def test_a_home_of_somebody_else_is_named(max_: User) -> None:
    """If HOME is another user's, left over from sudo or a container, the error names the file, and what needs none."""
    code = "import errno, sys; sys.argv[0] = 'polly'\n"
    code += "from pathlib import Path\ndef read(*_, **__): raise PermissionError(errno.EACCES, 'Permission denied')\n"
    code += "Path.read_text = read\nfrom polly_dockers.cli.main import run; run()"
    done = max_.run(POLLY[0], "-c", code, "whoami")
    assert (done.code, len(done.err.splitlines())) == (1, 1)
    assert "profiles.json can't be read: Permission denied. Set XDG_CONFIG_HOME to another folder" in done.err


def test_a_relative_folder_of_xdg_is_ignored(max_: User) -> None:
    """The specification says so; nothing is created in the current folder."""
    assert max_.ok("whoami", XDG_CONFIG_HOME="relative", XDG_CACHE_HOME="other", XDG_RUNTIME_DIR="third").code == 0
    assert max_.ok("dockers", "configure", XDG_CONFIG_HOME="relative", XDG_RUNTIME_DIR="third").code == 0
    assert not (max_.home / "relative").exists()


@pytest.mark.parametrize("zone", ["Nowhere/Never", "AAA-30", ":/etc/passwd", "", "\u0142"])
def test_an_unusable_time_zone_shows_utc(max_: User, zone: str) -> None:
    """Dates are still shown, in UTC."""
    assert "expires" in max_.ok("whoami", TZ=zone).out


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_descriptors_do_no_harm(max_: User, closed: str) -> None:
    """A closed stdin counts as empty, a closed stderr is ignored, and a closed stdout is an error."""
    done = max_.run("sh", "-c", f"polly dockers list {closed}")
    assert done.code == (1 if ">&-" in closed.replace("2>&-", "") else 0), done
    done = max_.run("sh", "-c", f"polly password --password-stdin {closed}")
    assert done.code == 2
    done = max_.run("sh", "-c", f"docker-credential-polly get {closed}")
    assert done.code == 1
    assert "no credentials server URL" in done.out or ">&-" in closed.replace("2>&-", "")


@pytest.mark.parametrize("stdout", [">&-", "> /dev/full"])
def test_a_server_without_stdin_and_stdout_runs(tmp_path: Path, stdout: str) -> None:
    """It prints on stderr that stdout failed and, for a new demo, how to get a password."""
    port = free_port()
    place = f"--data {tmp_path}/data --listen 127.0.0.1:{port} --workers 1"
    script = f"exec {BIN}/polly-server run --demo {place} <&- {stdout}"
    with ending(subprocess.Popen(["sh", "-c", script], stderr=subprocess.PIPE, text=True)) as process:
        assert process.stderr is not None
        said = next(line for line in process.stderr if line.startswith("polly-server: "))
        assert "stdout can't be written" in said
        assert "polly-server user reset-password" in said
        with socket.create_connection(("127.0.0.1", port)):
            process.terminate()
        process.communicate(timeout=90)
    assert process.returncode == 0


def test_output_that_cannot_be_written_is_one_line(max_: User) -> None:
    """If stdout is on a full disk, the exit code is 1; if stderr is, the command works all the same."""
    for command in ("polly dockers list", "polly whoami --output json", "polly --help", "docker-credential-polly list"):
        done = max_.run("sh", "-c", f"{command} > /dev/full")
        assert done.code != 0, command
        assert len(done.err.splitlines()) == 1, (command, done.err)
        assert "No space left on device" in done.err
    assert "hello" in max_.run("sh", "-c", "polly dockers list 2> /dev/full").out
    done = max_.run("sh", "-c", f"{BIN}/polly-server --help > /dev/full")
    assert (done.code, len(done.err.splitlines())) == (1, 1), done.err


@pytest.mark.parametrize("command", ["polly --version", "polly-server --version", "polly-server org list --data data"])
def test_a_closed_stdout_is_one_line(max_: User, command: str) -> None:
    """A closed stdout gives exit code 1 and the reason, without a traceback."""
    (max_.home / "data").mkdir(exist_ok=True)
    if "data" in command:
        max_.run("sh", "-c", f"echo long-enough | {BIN}/polly-server init --data data --org a --email a@b.example"
                 " --password-stdin")  # fmt: skip
    done = max_.run("sh", "-c", f"{BIN}/{command} >&-")
    assert (done.code, done.err.count("\n"), "Bad file descriptor" in done.err) == (1, 1, True), done
