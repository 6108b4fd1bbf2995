"""``docker-credential-polly`` and ``polly dockers configure``, with the clients that ask for credentials."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from cli.people import HELPER, SECONDS, Server, User, mode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NO_ENGINE = {"DOCKER_HOST": "unix:///none/docker.sock"}
NOT_FOUND = "credentials not found in native keychain"


@pytest.fixture(scope="module")
def organisation(server: Server) -> tuple[str, tuple[str, str]]:
    """Return one organisation for all tests here: its content does not matter to them."""
    return server.new_org()


def cache(user: User) -> Path:
    """Return the one file of the cache."""
    [path] = (user.home / ".cache/polly/registry-tokens").glob("*.json")
    return path


def change_cache(user: User, **values: float) -> None:
    """Change the times of the cached token."""
    cache(user).write_text(json.dumps(json.loads(cache(user).read_text()) | values))


def test_get_hands_out_a_token_and_keeps_it_for_the_next(ann: User, server: Server) -> None:
    """User name POLLY, a token that is not that of the sign-in, the same one again, in a file of mode 0600."""
    first = ann.helper("get", f"{server.registry}\n").json()
    assert (first["ServerURL"], first["Username"]) == (server.registry, "POLLY")
    assert first["Secret"] not in {"", ann.token()}
    assert ann.helper("get", f"https://{server.registry}/v1/").json()["Secret"] == first["Secret"]
    assert (mode(cache(ann)), mode(cache(ann).parent)) == (0o600, 0o700)
    assert ann.token() not in cache(ann).read_text()


def test_a_fresh_cache_needs_no_server_and_imports_little(ann: User, server: Server) -> None:
    """Docker waits for the helper before each request: nothing but the standard library is imported."""
    ann.helper("get", server.registry)
    code = (
        "import sys; sys.argv = ['docker-credential-polly', 'get']\n"
        "from polly_dockers.cli.credential_helper import run\n"
        "run()\n"
        "slow = {'msgspec', 'typer', 'urllib3', 'rich', 'platformdirs', 'ssl', 'http'} & set(sys.modules)\n"
        "assert not slow, slow\n"
    )
    done = ann.run(HELPER[0], "-c", code, stdin=server.registry)
    assert (done.code, done.err) == (0, "")


def test_a_token_is_renewed_before_it_expires(ann: User, server: Server) -> None:
    """It is renewed after two thirds of its time. If the server is gone, Docker gets the old one until it expires."""
    first = ann.helper("get", server.registry).json()["Secret"]
    change_cache(ann, lasts=0)
    second = ann.helper("get", server.registry).json()["Secret"]
    assert second != first
    change_cache(ann, lasts=0)
    document = json.loads(ann.profiles.read_text())
    gone = json.loads(ann.profiles.read_text())
    gone["profiles"][gone["current"]]["server"] = "http://127.0.0.1:1"
    ann.profiles.write_text(json.dumps(gone))
    done = ann.helper("get", server.registry)
    assert (done.code, "does not answer" in done.out) == (1, True)
    ann.profiles.write_text(json.dumps(document))
    cache(ann).write_text("half a fi")
    assert ann.helper("get", server.registry).code == 0


def test_twenty_at_once_get_one_token(ann: User, server: Server) -> None:
    """Docker pulls layers at the same time; one process asks the server, and the others wait for it."""

    def ask(_: int) -> str:
        command, env = [*HELPER, "get"], ann.env
        done = subprocess.run(
            command, input=server.registry, capture_output=True, text=True, env=env, timeout=SECONDS, check=True
        )
        return str(json.loads(done.stdout)["Secret"])

    with ThreadPoolExecutor(20) as pool:
        assert len(set(pool.map(ask, range(20)))) == 1


def test_an_unknown_host_is_not_found(ann: User, nobody: User, server: Server) -> None:
    """The words of the protocol, by which Docker goes on without signing in."""
    for user, host in ((ann, "registry.none.example"), (nobody, server.registry)):
        done = user.helper("get", host)
        assert (done.code, done.out) == (1, f"{NOT_FOUND}\n")
    assert ann.helper("get", "").out == "no credentials server URL\n"


def test_another_user_gets_another_token(person: Callable[..., User], server: Server) -> None:
    """After signing in as another user, the previous user's token is not given out."""
    ann, bob = person(), person("reader", signed_in=False)
    first = ann.helper("get", server.registry).json()["Secret"]
    ann.ok("login", "--server", server.url, "--email", bob.email, "--password-stdin", stdin=bob.password)
    assert ann.helper("get", server.registry).json()["Secret"] != first


def test_store_keeps_nothing(ann: User, nobody: User, server: Server) -> None:
    """Docker calls it after a login: it works for the signed-in user; for another, the error says what to do."""

    def login(user: str) -> str:
        return json.dumps({"ServerURL": server.registry, "Username": user, "Secret": "secret-secret"})

    assert ann.helper("store", login("POLLY")).code == ann.helper("store", login(ann.email)).code == 0
    done = ann.helper("store", login("bob@acme.example"))
    assert (done.code, "polly login --server" in done.out) == (1, True)
    done = nobody.helper("store", login("POLLY"))
    assert (done.code, "polly login --server" in done.out) == (1, True)
    assert ann.helper("store", "no JSON").code == 1
    assert not any("secret-secret" in each.read_text() for each in ann.home.rglob("*") if each.is_file())


@pytest.mark.parametrize("key", ["ServerURL", "Username"])
@pytest.mark.parametrize("value", ["\ud800", ["x"], {}, 7, None])
def test_store_refuses_what_is_not_text(ann: User, server: Server, key: str, value: object) -> None:
    """Input with half of a character, or that is not text at all, is refused, and the error says what is expected."""
    done = ann.helper(
        "store", json.dumps({"ServerURL": server.registry, "Username": "POLLY", "Secret": "x"} | {key: value})
    )
    assert (done.code, done.out) == (1, "store takes JSON with ServerURL, Username and Secret\n")


def test_erase_ends_the_token(ann: User, server: Server) -> None:
    """It is removed from the cache; the next get hands out another."""
    first = ann.helper("get", server.registry).json()["Secret"]
    assert ann.helper("erase", server.registry).code == 0
    assert list((ann.home / ".cache/polly/registry-tokens").glob("*.json")) == []
    assert ann.helper("get", server.registry).json()["Secret"] != first
    assert ann.helper("erase", "registry.none.example").out == f"{NOT_FOUND}\n"


def test_list_and_version(ann: User, nobody: User, server: Server) -> None:
    """The hosts of the profiles by all their names; a line that names the program; usage for anything else."""
    port = server.registry.partition(":")[2]
    assert ann.helper("list").json() == dict.fromkeys((f"localhost:{port}", server.registry, f"[::1]:{port}"), "POLLY")
    assert nobody.helper("list").json() == {}
    assert nobody.helper("version").out.startswith("docker-credential-polly ")
    assert nobody.helper("steal").code == 2


def test_a_missing_sign_in_is_reported_on_stderr(nobody: User) -> None:
    """Stdout has only the words of the protocol."""
    done = nobody.helper("get", "registry.acme.example\n")
    assert (done.code, done.out) == (1, f"{NOT_FOUND}\n")
    assert done.err == ("Not signed in to registry.acme.example; run: polly login --server registry.acme.example\n")


def test_configure_reports_an_older_login(ann: User, server: Server) -> None:
    """An older login stays in Docker's file, and the command that removes it is printed; an empty login is ignored."""
    folder = ann.home / ".docker"
    folder.mkdir()
    file = folder / "config.json"
    file.write_text(json.dumps({"auths": {server.registry: {"auth": "eDp5"}}}))
    assert f"To remove it: docker logout {server.registry}" in ann.ok("dockers", "configure").err
    file.write_text(json.dumps({"auths": {server.registry: {}}}))
    assert "docker logout" not in ann.ok("dockers", "configure").err


def test_configure_keeps_the_rest_of_the_file(ann: User, server: Server) -> None:
    """Keys, order, mode and a symbolic link stay; --undo restores exactly the same bytes."""
    folder, real = ann.home / ".docker", ann.home / "dotfiles.json"
    folder.mkdir()
    before = json.dumps(
        {"zeta": 1, "auths": {server.registry: {"auth": "YTpi"}}, "alpha": {"ü": [1.5]}},
        indent="\t",
        ensure_ascii=False,
    )
    real.write_text(before)
    real.chmod(0o640)
    (folder / "config.json").symlink_to(real)
    assert "Success: Docker asks polly for" in ann.ok("dockers", "configure").err
    document = json.loads(real.read_text())
    assert list(document) == ["zeta", "auths", "alpha", "credHelpers"]
    port = server.registry.partition(":")[2]
    assert document["credHelpers"] == dict.fromkeys((f"localhost:{port}", server.registry, f"[::1]:{port}"), "polly")
    assert document["auths"] == {server.registry: {"auth": "YTpi"}}
    assert (folder / "config.json").is_symlink()
    assert mode(real) == 0o640
    assert "as before" in ann.ok("dockers", "configure").err
    ann.ok("dockers", "configure", "--undo")
    assert real.read_text() == before
    assert "did not name polly" in ann.ok("dockers", "configure", "--undo").err


def test_undo_works_after_signing_out(ann: User) -> None:
    """After signing out, --undo removes every entry of polly, and no other."""
    path = ann.home / ".docker/config.json"
    ann.ok("dockers", "configure")
    document = json.loads(path.read_text())
    document["credHelpers"]["gcr.io"] = "gcloud"
    path.write_text(json.dumps(document))
    ann.ok("logout")
    assert ann.polly("dockers", "configure").code == 1
    assert "no longer names polly\n" in ann.ok("dockers", "configure", "--undo").err
    assert json.loads(path.read_text()) == {"auths": {}, "credHelpers": {"gcr.io": "gcloud"}}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{\n "auths": {},\n oops\n}', "line 3"),
        ("[]", "not a JSON object"),
        ('{\n "auths": {},\n "credHelpers": ["x"]\n}', 'line 3: "credHelpers" is not a JSON object'),
        (b'{"a":\n"\xff"}', "line 2: not UTF-8"),
    ],
)
def test_a_config_that_is_not_json_is_unchanged(ann: User, content: str | bytes, told: str) -> None:
    """Exit code 1 and the line; not a byte is changed."""
    path = ann.home / "docker/config.json"
    path.parent.mkdir()
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = path.read_bytes()
    done = ann.polly("dockers", "configure", DOCKER_CONFIG=str(path.parent))
    assert done.code == 1
    assert told in done.err
    assert "was not changed" in done.err
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_configure_warns_of_what_would_be_read_first(ann: User, server: Server) -> None:
    """An older login of podman, or REGISTRY_AUTH_FILE, hides the helper from podman, skopeo and buildah."""
    auth = ann.home / ".config/containers/auth.json"
    auth.parent.mkdir(parents=True)
    auth.write_text(json.dumps({"auths": {server.registry: {"auth": "YTpi"}}}))
    done = ann.ok("dockers", "configure", REGISTRY_AUTH_FILE="/x.json")
    assert f"podman logout {server.registry}" in done.err
    assert "REGISTRY_AUTH_FILE=/x.json" in done.err


@pytest.fixture
def storage() -> Iterator[list[str]]:
    """Return options for a storage in a short path: podman allows 50 characters."""
    with tempfile.TemporaryDirectory(prefix="polly-") as folder:
        yield ["--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]


def test_clients_sign_in_by_the_helper(ann: User, images: list[str], server: Server, storage: list[str]) -> None:
    """skopeo, podman and buildah sign in through the helper alone."""
    ann.ok("dockers", "configure")
    reference = f"{server.registry}/{ann.env['TEST_ORG']}/team/gpu"
    commands = [
        ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{reference}@{images[1]}"],
        ["skopeo", "list-tags", "--tls-verify=false", f"docker://{reference}"],
        ["podman", *storage, "search", "--tls-verify=false", "--list-tags", reference],
        ["podman", *storage, "login", "--get-login", server.registry],
        ["buildah", *storage, "login", "--get-login", server.registry],
    ]
    for command in commands:
        assert shutil.which(command[0]), f"{command[0]} is missing"
        done = ann.run(*command, **NO_ENGINE)
        assert done.code == 0, (command, done.err, done.out)
    done = ann.run("sh", "-c", ann.ok("dockers", "login").out, **NO_ENGINE)  # it calls store
    assert done.code == 0, done.err
    written = (ann.home / ".docker/config.json").read_text()
    assert ann.token() not in written
    assert '"auth"' not in written
    ann.ok("dockers", "configure", "--undo")
    for command in commands[:3]:
        assert ann.run(*command, **NO_ENGINE).code != 0


def credential(user: User) -> str:
    """Return the id of the one token that the helper has made."""
    items = user.ok("tokens", "list", "--output", "json").json()
    [token] = [item["id"] for item in items if item["label"].startswith("docker-credential-polly")]
    return str(token)


def test_a_revoked_token_is_handed_out_no_more(person: Callable[..., User], server: Server) -> None:
    """After `tokens revoke` of Docker's token, the next request gets a new one, without any other command."""
    bob = person("reader")
    first = bob.helper("get", server.registry).json()["Secret"]
    bob.ok("tokens", "revoke", credential(bob))
    second = bob.helper("get", server.registry).json()["Secret"]
    assert second != first
    assert credential(bob)


def test_configure_recovers_from_a_token_revoked_elsewhere(person: Callable[..., User], server: Server) -> None:
    """It says that the token was revoked, and replaces it; a valid token is kept."""
    bob = person("reader")
    first = bob.helper("get", server.registry).json()["Secret"]
    assert "was revoked" not in bob.ok("dockers", "configure").err
    assert bob.helper("get", server.registry).json()["Secret"] == first
    path, kept = cache(bob), cache(bob).read_text()
    bob.ok("tokens", "revoke", credential(bob))
    path.write_text(kept)  # as on another computer, which nobody told
    assert bob.helper("get", server.registry).json()["Secret"] == first
    assert "was revoked; Docker gets a new one" in bob.ok("dockers", "configure").err
    assert bob.helper("get", server.registry).json()["Secret"] != first


def test_configure_without_a_good_sign_in_names_the_login(ann: User) -> None:
    """Exit code 1, and Docker's file is not touched."""
    document = json.loads(ann.profiles.read_text())
    document["profiles"][document["current"]]["token"] = "polly_none"
    ann.profiles.write_text(json.dumps(document))
    done = ann.polly("dockers", "configure")
    assert (done.code, "polly login --server" in done.err) == (1, True)
    assert not (ann.home / ".docker/config.json").exists()


@pytest.mark.parametrize("leaving", [["logout"], ["profiles", "remove", "lab"], ["tokens", "revoke"]])
def test_nothing_for_docker_is_left_behind(person: Callable[..., User], server: Server, leaving: list[str]) -> None:
    """However the sign-in ends, its token for Docker ends too, and the next sign-in gets another."""
    bob = person("reader", signed_in=False)
    bob.login(server, "--profile", "lab")
    first = bob.helper("get", server.registry).json()["Secret"]
    if leaving[0] == "tokens":
        items = bob.ok("tokens", "list", "--output", "json").json()
        leaving = [*leaving, next(each["id"] for each in items if each["current"]), "--yes"]
    bob.ok(*leaving)
    assert list((bob.home / ".cache/polly/registry-tokens").glob("*.json")) == []
    bob.login(server, "--profile", "lab")
    assert bob.helper("get", server.registry).json()["Secret"] != first


def test_a_borrowed_sign_in_leaves_no_token_for_docker(person: Callable[..., User], server: Server) -> None:
    """After signing out, the token of POLLY_TOKEN stays valid; the one that Docker got with it does not."""
    bob = person("reader")
    arguments = ["tokens", "create", "ci", "--scope", "full", "--password-stdin", "--file", "-"]
    token = bob.ok(*arguments, stdin=bob.password).out.strip()
    bob.ok("login", "--auto", "--profile", "job", POLLY_SERVER=server.url, POLLY_TOKEN=token)
    bob.helper("get", server.registry, POLLY_PROFILE="job")
    assert credential(bob)
    bob.ok("logout", "--profile", "job")
    items = bob.ok("tokens", "list", "--profile", server.registry, "--output", "json").json()
    assert not any(each["label"].startswith("docker-credential-polly") for each in items)


@pytest.mark.parametrize("line", ["get", "list"])
def test_a_path_that_is_not_utf_8_is_shown_escaped(ann: User, server: Server, line: str) -> None:
    """The byte is escaped, by the helper on stdout and by polly on stderr; neither crashes."""
    folder = ann.home / "caf\udce9"
    (folder / "polly").mkdir(parents=True)
    (folder / "polly/profiles.json").write_text("{")
    done = ann.helper(line, server.registry, XDG_CONFIG_HOME=str(folder))
    assert (done.code, done.err) == (1, "")
    assert "caf\\udce9/polly/profiles.json" in done.out
    done = ann.polly("whoami", XDG_CONFIG_HOME=str(folder))
    assert (done.code, "caf\\udce9/polly/profiles.json" in done.err) == (1, True)


def test_a_server_that_does_not_answer_affects_only_its_host(ann: User, server: Server) -> None:
    """If POLLY_SERVER does not answer, hosts of profiles still work without it, and any other host is unknown."""
    gone = {"POLLY_SERVER": "http://127.0.0.1:1", "POLLY_TOKEN": "polly_x"}
    assert ann.helper("get", server.registry, **gone).json()["Username"] == "POLLY"
    done = ann.helper("get", "index.docker.io", **gone)
    assert (done.code, done.out) == (1, f"{NOT_FOUND}\n")
    done = ann.helper("get", "127.0.0.1:1", **gone)
    assert (done.code, "does not answer" in done.out) == (1, True)


def test_the_environment_comes_before_the_profile_of_its_server(ann: User, server: Server) -> None:
    """It does so even if the profile has another name for the registry than the address."""
    document = json.loads(ann.profiles.read_text())
    document["profiles"][document["current"]]["registry"] = "registry.acme.example"
    ann.profiles.write_text(json.dumps(document))
    revoked = ann.ok("tokens", "create", "x", "--output", "json").json()
    ann.ok("tokens", "revoke", revoked["id"])
    done = ann.helper("get", "registry.acme.example", POLLY_SERVER=server.url, POLLY_TOKEN=revoked["token"])
    assert done.code == 1
    assert ann.helper("get", "registry.acme.example").code == 0
