"""Passwords may be typed, piped and encoded in several ways, and no message shows one."""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
import termios
import unicodedata
from typing import TYPE_CHECKING

import pexpect
import pytest

from cli.people import POLLY, SECONDS, Server, User, environment
from support.server import BIN, polly_server

if TYPE_CHECKING:
    from pathlib import Path

SERVER = [str(BIN / "polly-server")]


@pytest.fixture(scope="module")
def zoe(server: Server, tools: Path, tmp_path_factory: pytest.TempPathFactory) -> User:
    """Return a person whose password has letters that are more than one byte, or more than one character."""
    email, _ = server.add_user(role="reader")
    home = tmp_path_factory.mktemp("zoe")
    password = f"Zoë-ñandú-{secrets.token_hex(4)}"
    reset(server, email, password)
    return User(home, email, password, environment(home, tools))


def reset(server: Server, email: str, password: str) -> None:
    """Give a user a password."""
    place = ("--data", str(server.data), "--email", email)
    polly_server("user", "reset-password", *place, "--password-stdin", stdin=password)


def question(tool: str, user: User, server: Server) -> pexpect.spawn[bytes]:
    """Return a command that has asked for a password on a terminal."""
    if tool == "polly":
        command, asked = [*POLLY, "login", "--server", server.url, "--email", user.email], b"Enter your password"
    else:
        place = ["--data", str(server.data), "--email", user.email]
        command, asked = [*SERVER, "user", "reset-password", *place], f"New password of {user.email}: ".encode()
    env = user.env | {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
    child: pexpect.spawn[bytes] = pexpect.spawn(command[0], command[1:], env=env, timeout=SECONDS)
    child.expect_exact(asked)
    return child


def login(user: User, server: Server, stdin: bytes, **env: str) -> subprocess.CompletedProcess[bytes]:
    """Sign in with bytes on stdin."""
    command = [*POLLY, "login", "--server", server.url, "--email", user.email, "--password-stdin"]
    return subprocess.run(
        command, input=stdin, env=user.env | env, timeout=SECONDS, check=False, capture_output=True, cwd=user.home
    )


def test_a_password_is_the_same_from_everywhere(zoe: User, server: Server) -> None:
    """A byte order mark, the line end, composed letters and the encoding (UTF-8 or the locale's) make no difference."""
    apart = unicodedata.normalize("NFD", zoe.password)
    for content, locale in (
        (zoe.password.encode(), "utf-8"),
        (f"{apart}\r\n".encode(), "latin-1"),
        (f"\ufeff{zoe.password}\n".encode(), "ascii"),
        (zoe.password.encode("latin-1"), "latin-1"),
        (f"{zoe.password}\r\n".encode("cp850"), "cp850"),
    ):
        done = login(zoe, server, content, PYTHONIOENCODING=locale)
        assert done.returncode == 0, (content, locale, done.stderr)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("Zo\u00eb-secret\n".encode("latin-1"), "neither UTF-8"),
        ("Zo\u00eb-secret\r\n".encode("utf-16"), "save it as UTF-8"),
        (b"Zo-sec\x00ret\n", "save it as UTF-8"),
        (b"\xef\xbb\xbf\r\n", "stdin is empty"),
    ],
)
def test_passwords_that_are_not_text_are_refused_and_not_shown(
    zoe: User, server: Server, tmp_path: Path, content: bytes, said: str
) -> None:
    """Both polly and polly-server print one line with no letter of it, and end with exit code 2."""
    done = login(zoe, server, content, PYTHONIOENCODING="utf-8")
    command = [*SERVER, "init", "--org", "acme", "--email", "a@b.example", "--data", str(tmp_path / "data")]
    initialised = subprocess.run([*command, "--password-stdin"], input=content, capture_output=True, check=False)
    for each in (done, initialised):
        assert each.returncode == 2, each.stderr
        [line] = [line for line in each.stderr.decode().splitlines() if not line.startswith("Warning")]
        assert said in line
        assert not any(word in line for word in ("secret", "Zo", "ret", "xeb", "Unicode", "codec"))
    assert not (tmp_path / "data").exists()


def test_a_password_of_the_environment_is_one_of_stdin(zoe: User, server: Server) -> None:
    """--auto reads POLLY_PASSWORD, even if its encoding is not the locale's."""
    env = zoe.env | {"POLLY_SERVER": server.url, "POLLY_EMAIL": zoe.email, "PYTHONIOENCODING": "latin-1"}
    code = (
        "import os,sys; os.environb[b'POLLY_PASSWORD']=bytes.fromhex(sys.argv[1]); os.execv(sys.argv[2],sys.argv[2:])"
    )
    command = [sys.executable, "-c", code, zoe.password.encode("latin-1").hex(), *POLLY, "login", "--auto"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_arguments_that_are_not_text_are_named_by_their_place(zoe: User) -> None:
    """A name in Latin-1 is refused in a UTF-8 locale; the message does not show what it could not read."""
    command = [*map(str.encode, POLLY), b"dockers", b"list", b"--search", b"caf\xe9"]
    done = subprocess.run(command, env=zoe.env, capture_output=True, check=False)
    assert done.returncode == 2
    assert (
        done.stderr == b"Error: Argument 4 is not text in the encoding of the locale. Set LC_ALL to the right locale.\n"
    )


def test_a_token_with_a_byte_order_mark_is_that_token(zoe: User, server: Server) -> None:
    """POLLY_TOKEN may come from a file that a Windows editor wrote."""
    zoe.login(server)
    assert zoe.ok("whoami", POLLY_SERVER=server.url, POLLY_TOKEN=f"\ufeff{zoe.token()}\r\n").code == 0


@pytest.mark.parametrize("tool", ["polly", "polly-server"])
def test_a_terminal_with_another_encoding(zoe: User, server: Server, tool: str) -> None:
    """Latin-1 letters typed on a UTF-8 terminal give one line, which shows none of them."""
    child = question(tool, zoe, server)
    child.send(b"Zo\xeb-secret\r")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 2
    assert b"neither UTF-8" in child.before
    assert b"secret" not in child.before


@pytest.mark.parametrize("tool", ["polly", "polly-server"])
def test_a_password_is_typed(zoe: User, server: Server, tool: str) -> None:
    """It is not shown on the screen; polly-server asks twice, until it is allowed and both are the same."""
    new = f"Zoë-{secrets.token_hex(4)}"
    child = question(tool, zoe, server)
    if tool == "polly-server":
        child.sendline(b"short")
        child.expect_exact(b"A password must have 8 to 1024 characters; this one has 5.")
        child.expect_exact(f"New password of {zoe.email}: ".encode())
        for one, two in ((new, "something else"), (new, new)):
            child.sendline(one.encode())
            child.expect_exact(b"The same again: ")
            child.sendline(two.encode())
            if two != new:
                child.expect_exact(b"differ")
                child.expect_exact(f"New password of {zoe.email}: ".encode())
    else:
        child.send(zoe.password.encode() + b"\r")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert new.encode() not in child.before
    if tool == "polly-server":
        assert login(zoe, server, new.encode()).returncode == 0
        reset(server, zoe.email, zoe.password)


@pytest.mark.parametrize("tool", ["polly", "polly-server"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_at_the_question_gives_the_terminal_its_echo_back(
    zoe: User, server: Server, tool: str, number: signal.Signals
) -> None:
    """Afterwards the shell shows again what is typed."""
    child = question(tool, zoe, server)
    assert not termios.tcgetattr(child.child_fd)[3] & termios.ECHO
    child.kill(number)
    child.expect(pexpect.EOF)
    settings = termios.tcgetattr(child.child_fd)[3]
    assert (settings & termios.ECHO, settings & termios.ICANON) == (termios.ECHO, termios.ICANON)
    child.close()
    assert (child.exitstatus, child.signalstatus) == (128 + number, None)
