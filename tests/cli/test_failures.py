"""Addresses without a Polly server, connections that break, and commands that are interrupted."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import json
import os
import shlex
import socket
import ssl
import subprocess
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from cli.people import POLLY, SECONDS, Server, User
from support.server import ending

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

INFO = '{"product": "polly-docker-repository", "version": "1", "registry": "%s", "url": "http://127.0.0.1"}'


@contextmanager
def answering(
    status: int, body: str | bytes, headers: dict[str, str] | None = None, tls: Path | None = None
) -> Iterator[str]:
    """Run a server that gives the same answer to every request, and yield ``HOST:PORT``."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.send_response(status)
            for name, value in ({"content-length": str(len(body))} | (headers or {})).items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # it is not read to its end
                self.wfile.write(body.encode() if isinstance(body, str) else body)

        do_GET = do_POST = do_DELETE = answer  # noqa: N815 - the library's names

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def login(user: User, server: str, **env: str) -> str:
    """Try to sign in, which must fail with exit code 1 and one line (after a warning for plain http); return it."""
    done = user.polly("login", "--server", server, "--email", "ann@acme.example", "--password-stdin", stdin="x", **env)
    assert (done.code, done.out) == (1, "")
    [line] = [line for line in done.err.splitlines() if not line.startswith("Warning: ")]
    assert not user.profiles.exists()
    return line


def test_a_server_that_does_not_answer(nobody: User) -> None:
    """If nothing listens, or the name does not exist, one line says the cause and what to do."""
    assert "127.0.0.1:1 does not answer (connection refused)" in login(nobody, "127.0.0.1:1")
    assert "registry.invalid does not answer (" in login(nobody, "registry.invalid")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, "<html>Welcome</html>"),
        (404, "not here"),
        (404, '{"errors": [{"code": "NOT_FOUND", "message": "There is nothing at /api/v1."}]}'),
        (200, "{}"),
        (200, '{"product": "x", "version": "1", "registry": "r", "url": "u"}'),
        (200, INFO % "host; rm -rf ~"),
    ],
)
def test_a_server_that_is_no_polly(nobody: User, status: int, body: str) -> None:
    """A web page, another product, and one whose registry would be a command in a shell."""
    with answering(status, body) as address:
        assert "is not a Polly Docker Repository" in login(nobody, address)


def test_a_proxy_error_and_a_redirect_are_told(nobody: User) -> None:
    """502 without an envelope; a redirect is not followed with a password, but named."""
    with answering(502, "Bad Gateway") as address:
        assert "answered 502" in login(nobody, address)
    with answering(308, "", {"location": "https://registry.acme.example/api/v1"}) as address:
        assert "redirects to https://registry.acme.example/api/v1" in login(nobody, address)


def test_too_many_attempts_say_when_to_try_again(nobody: User) -> None:
    """The message has the time of Retry-After."""
    body = '{"errors": [{"code": "TOOMANYREQUESTS", "message": "Too many wrong passwords."}]}'
    with answering(429, body, {"retry-after": "7"}) as address:
        assert "Too many wrong passwords. Try again in 7 seconds." in login(nobody, address)


def test_a_server_that_closes_at_once(nobody: User) -> None:
    """A TLS server closes a plain HTTP connection: the message has the https address to try."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"

        def hang_up() -> None:
            connection, _ = listening.accept()
            connection.recv(4096)
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        assert f"polly login --server https://{address}" in login(nobody, address)
        thread.join()


def test_an_answer_cut_short(nobody: User) -> None:
    """The connection ends in the middle of the body."""
    with answering(200, INFO, {"content-length": "9999"}) as address:
        assert "does not answer" in login(nobody, address)


def test_an_answer_of_another_version(nobody: User) -> None:
    """If the answer has an unknown form, the message says that the versions differ."""
    with answering(200, '{"items": 7}') as address:
        done = nobody.polly("whoami", POLLY_SERVER=address, POLLY_TOKEN="polly_x")
    assert (done.code, "in a form that polly" in done.err) == (1, True)


@pytest.mark.parametrize(("status", "packed"), [(200, False), (200, True), (500, False)])
def test_an_answer_fills_no_memory(nobody: User, status: int, *, packed: bool) -> None:
    """An answer that is too long is not read to its end, and a compressed one that nobody asked for is not unpacked."""
    spaces = b" " * (300 << 20)
    body, headers = (gzip.compress(spaces, 1), {"content-encoding": "gzip"}) if packed else (spaces, {})
    del spaces
    limited = f"ulimit -v 300000; exec {shlex.join(POLLY)} whoami"
    with answering(status, body, headers) as address:
        done = nobody.run("bash", "-c", limited, POLLY_SERVER=f"http://{address}", POLLY_TOKEN="polly_x")
    assert (done.code, len(done.err.splitlines())) == (1, 1)
    assert ("in a form that polly" if status == 200 else "answered 500") in done.err


def test_an_answer_that_is_nested_without_end(nobody: User) -> None:
    """The message is the same as for any other unknown answer."""
    with answering(200, '{"x": ' + "[" * 100_000) as address:
        done = nobody.polly("whoami", POLLY_SERVER=f"http://{address}", POLLY_TOKEN="polly_x")
    assert (done.code, "in a form that polly" in done.err) == (1, True)


def test_a_list_that_goes_in_circles(nobody: User) -> None:
    """If a server's next page is one that it has already sent, the command stops asking."""
    with answering(200, '{"items": [], "total": 0, "next": "x"}') as address:
        done = nobody.polly("audit", "list", "--all", "--org", "o", POLLY_SERVER=f"http://{address}", POLLY_TOKEN="p_x")
    assert (done.code, "in a form that polly" in done.err) == (1, True), done


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with a key and a self-signed certificate for 127.0.0.1."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", path, "-out", f"{path}.crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_text(path.read_text() + path.with_name("both.pem.crt").read_text())
    return path


def test_tls_failures_name_the_way_out(nobody: User, certificate: Path) -> None:
    """The message says what to do about an untrusted certificate, a wrong certificate file, and a plain HTTP server."""
    with answering(200, INFO % "127.0.0.1:5000", tls=certificate) as address:
        assert "POLLY_CA_FILE" in login(nobody, f"https://{address}")
        assert "is not a file of certificates" in login(nobody, f"https://{address}", POLLY_CA_FILE="/dev/null")
    with answering(200, INFO % "127.0.0.1:5000") as address:
        line = login(nobody, f"https://{address}")
        assert f"polly login --server http://{address}" in line


@pytest.mark.parametrize("variable", ["POLLY_CA_FILE", "SSL_CERT_FILE"])
def test_a_certificate_authority_of_your_own(nobody: User, certificate: Path, variable: str) -> None:
    """With --ca-file the server is reached, and only its next answer is an error."""
    with answering(200, INFO % "127.0.0.1:5000", tls=certificate) as address:
        assert "in a form that polly" in login(nobody, f"https://{address}", **{variable: f"{certificate}.crt"})


def test_the_certificates_are_kept_with_the_profile(ann: User, certificate: Path, server: Server) -> None:
    """By --ca-file or POLLY_CA_FILE; commands and Docker's helper trust them, and without them say what to run."""
    arguments = ["login", server.url, "--email", ann.email, "--password-stdin"]
    ann.ok(*arguments, stdin=ann.password, POLLY_CA_FILE=f"{certificate}.crt")
    ann.ok(*arguments, "--ca-file", os.path.relpath(f"{certificate}.crt", ann.home), stdin=ann.password)
    ann.ok(*arguments, stdin=ann.password)
    document = json.loads(ann.profiles.read_text())
    profile = document["profiles"][document["current"]]
    assert profile["ca_file"] == f"{certificate}.crt"
    with answering(200, INFO % "127.0.0.1:5000", tls=certificate) as address:
        profile["server"] = f"https://{address}"
        accept = ("members", "accept", "--server", profile["server"], "--email", "x@a.example", "--code-stdin")
        trusting = ("--password-stdin", "--profile", "new", "--ca-file", f"{certificate}.crt")
        assert "in a form that polly" in ann.polly(*accept, *trusting, stdin="invite-x\na password of mine\n").err
        for trusted, words in ((f"{certificate}.crt", "in a form that polly"), ("", f"{address} --ca-file /path/to")):
            profile["ca_file"] = trusted
            ann.profiles.write_text(json.dumps(document))
            assert words in ann.polly("whoami").err
            assert words in ann.helper("get", profile["registry"]).out


def test_the_proxy_of_the_environment_is_used(nobody: User) -> None:
    """HTTP_PROXY is asked for other hosts, and not for those of NO_PROXY."""
    with answering(200, "<html>the proxy</html>") as proxy:
        line = login(nobody, "http://registry.invalid", HTTP_PROXY=f"http://{proxy}", NO_PROXY="")
        assert line.startswith("Error: http://registry.invalid answers, but it is not a Polly Docker Repository.")
        assert "does not answer" in login(
            nobody, "http://registry.invalid", HTTP_PROXY=f"http://{proxy}", NO_PROXY=".invalid"
        )


@pytest.mark.parametrize(
    "junk", ["", "ftp://x", "http://", "a b", "https://ann:pw@host", "host/path", "host:99999", "-x"]
)
def test_wrong_addresses(nobody: User, junk: str) -> None:
    """A wrong address gives exit code 2 and a correct example."""
    done = nobody.polly("login", f"--server={junk}", "--no-input")
    assert done.code == 2
    assert "ann:pw" not in done.err  # it may be a password
    assert "Valid examples: registry.acme.example" in done.err or "--server is empty" in done.err


def test_a_closed_pipe_ends_quietly(ann: User, images: list[str]) -> None:
    """``polly … | true`` prints no traceback and no message of Python."""
    del images
    script = "{ polly dockers list --output json; echo $? > code; } | true"
    done = ann.run("sh", "-c", script)
    assert (ann.home / "code").read_text().strip() in {"0", "141"}
    assert "Broken" not in done.err
    assert "Exception" not in done.err


def test_interrupt_ends_quietly(nobody: User) -> None:
    """SIGINT while the server does not answer gives exit code 130, and nothing is printed."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = "{}:{}".format(*silent.getsockname())
        env = nobody.env | {"POLLY_SERVER": address, "POLLY_TOKEN": "polly_x"}
        command = ["env", "--default-signal=INT", *POLLY, "whoami"]  # a job in the background has it ignored
        pipe = subprocess.PIPE
        with ending(subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True)) as process:
            silent.settimeout(SECONDS)
            connection, _ = silent.accept()
            with connection:
                process.send_signal(2)
                out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out, err) == (130, "", "")


def test_a_bug_is_one_line(nobody: User) -> None:
    """An unforeseen error says how to see more, but not its own text, which may hold a secret."""
    code = (
        "import sys; from polly_dockers.cli import main; from polly_dockers.cli.actions import account\n"
        "account.whoami = lambda *_: 1 / 0\n"
        "sys.argv = ['polly', 'whoami']; main.run()"
    )
    done = nobody.run(POLLY[0], "-c", code)
    assert done.code == 1
    [line] = done.err.splitlines()
    assert "ZeroDivisionError" not in line
    assert "POLLY_DEBUG=1" in line


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nothing", "There is no command 'nothing'. See polly --help."),
        ("dockers remove one", "There is no command 'remove'. Did you mean 'delete'? See polly dockers --help."),
        ("dockers undelete one", "There is no command 'undelete'. Did you mean 'restore'? See polly dockers --help."),
        ("members rm", "There is no command 'rm'. Did you mean 'remove'? See polly members --help."),
        ("members invite", "There is no command 'invite'. Did you mean 'add'? See polly members --help."),
        (
            "org create x",
            "There is no command 'create'. Operators of the server use: polly-server org create. See polly org --help.",
        ),
        ("usage", "There is no command 'usage'. Operators of the server use: polly-server usage. See polly --help."),
        ("dockers lst", "There is no command 'lst'. Did you mean 'list'? See polly dockers --help."),
        ("dockers list --al", "There is no option --al. Did you mean --all? See polly dockers list --help."),
        ("dockers commit-list x --newest 3", "There is no option --newest. Did you mean --latest?"),
        ("dockers policy --latest 3", "There is no option --latest. Did you mean --newest?"),
        ("dockers delete x --force", "There is no option --force. Did you mean --yes?"),
        ("dockers delete x -f", "There is no option -f. Did you mean --yes?"),
        ("dockers delete x --yess", "There is no option --yess. See polly dockers delete --help."),
        ("dockers policy --days 3", "There is no option --days. Did you mean --younger-than?"),
        ("dockers policy --keep 1", "There is no option --keep. Did you mean --newest?"),
        ("dockers tags big --tag v9", "There is no option --tag. See polly dockers tags --help."),
        ("dockers list --json", "There is no option --json. Did you mean --output json?"),
        ("dockers list -x", "There is no option -x. See polly dockers list --help."),
        ("login --sever x", "There is no option --sever. Did you mean --server? See polly login --help."),
        ("login --password x", "There is no option --password. Did you mean --password-stdin?"),
        ("dockers create --desc x", "There is no option --desc. Did you mean --description?"),
        ("commit-list x", "There is no command 'commit-list'. Did you mean 'dockers commit-list'? See polly --help."),
        ("dockers list --output xml", "--output 'xml' is not one of table, json. See polly dockers list --help."),
        ("dockers list --latest 0", "--latest takes a number, 1 or more. See polly dockers list --help."),
        ("dockers policy --newest 0", "--newest takes a number from 1 to 1000. See polly dockers policy --help."),
        ("dockers policy --newest 5000", "--newest takes a number from 1 to 1000. See polly dockers policy --help."),
        ("dockers list --latest two", "--latest takes a whole number. See polly dockers list --help."),
        ("dockers list --latest " + "9" * 5000, "--latest takes a whole number. See polly dockers list --help."),
        ("dockers list --latest", "--latest needs a value. See polly dockers list --help."),
        ("dockers list --all=1", "--all takes no value. See polly dockers list --help."),
        ("dockers list one", "There are too many arguments: one. Did you mean --search one?"),
        ("dockers list --search one two", "There are too many arguments: two. See polly dockers list --help."),
        ("dockers commit-list one two", "There are too many arguments: two. See polly dockers commit-list --help."),
        ("members add a@b.example --role boss", "--role 'boss' is not one of reader, writer, admin."),
        ("dockers login --expires soon", "--expires 'soon' is not a span of time"),
        ("login ftp://x", "'ftp://x' is not the address of a server"),
    ],
)
def test_wrong_command_lines_are_one_line(nobody: User, line: str, words: str) -> None:
    """The exit code is 2; the message is in our words, not a library's, and names the help."""
    done = nobody.polly(*line.split(), "--no-input") if not line.endswith("--latest") else nobody.polly(*line.split())
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"Error: {words}")
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize(
    "line",
    [
        "dockers commit-list one --tag bad!tag",
        "dockers delete one --commit nothing --yes",
        "dockers policy --newest 5000 --yes",
        "dockers policy --younger-than 1m --yes",
        "members add no-address --role reader",
        "audit list --event nonsense",
        "dockers list --org Bad_Org!",
        "dockers create x --description " + "x" * 5000,
    ],
)
def test_every_wrong_value_is_wrong_usage(ann: User, line: str) -> None:
    """A value that only the server knows to be wrong also gives exit code 2 and one line."""
    done = ann.polly(*line.split())
    assert (done.code, done.out) == (2, ""), done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"junk\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_broken_answers_have_plain_messages(nobody: User, answer: bytes) -> None:
    """The message has no name of a class and no word of a library."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        address = "http://{}:{}".format(*listener.getsockname())
        done = nobody.polly("whoami", POLLY_SERVER=address, POLLY_TOKEN="polly_x")
        thread.join(SECONDS)
    assert done.code == 1
    assert len(done.err.splitlines()) == 1
    for word in ("urllib3", "Error(", "Protocol", "Remote", "Incomplete", "Invalid", "Bad", "(b'", "Expected", "pool"):
        assert word not in done.err, done.err
