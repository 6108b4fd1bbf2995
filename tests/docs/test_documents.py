"""The documents say what the program does."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from typer.main import get_command

from polly_dockers import __version__
from polly_dockers.cli.errors import CommandError, DeclinedError, UsageError
from polly_dockers.config import SETTINGS
from polly_dockers.db.audit import Event
from polly_dockers.server.cli.main import app
from support.wire_client import basic

if TYPE_CHECKING:
    from support.server import Server

ROOT = Path(__file__).parents[2]


def test_configuration_has_the_table_of_settings() -> None:
    """docs/configuration.md has the table that scripts/settings-table writes from the code."""
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/settings-table", "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_every_setting_is_an_option_of_run() -> None:
    """polly-server run takes each setting as an option of its name, with the default in its help."""
    options = {option.name: option for option in get_command(app).commands["run"].params}  # type: ignore[attr-defined]
    for name, setting in SETTINGS.items():
        assert setting.default_text in options[name].help


def test_the_changelog_names_this_version() -> None:
    """CHANGELOG.md has a section for the version that the package has."""
    assert f"\n## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_architecture_names_every_module() -> None:
    """docs/architecture.md has each file and folder of the package, so that a newcomer finds the right one."""
    text = (ROOT / "docs/architecture.md").read_text()
    package = ROOT / "src/polly_dockers"
    names = [f"{path.name}/" if path.is_dir() else path.name for path in package.iterdir()]
    missing = [name for name in names if not name.startswith(("__", "py.typed")) and name not in text]
    assert missing == []


def test_every_server_command_has_an_example() -> None:
    """Each command of polly-server shows an example in its help."""
    found = get_command(app)

    def leaves(command: object, path: str) -> list[tuple[str, str]]:
        inner = getattr(command, "commands", None)
        if inner is None:
            return [(path, getattr(command, "epilog", None) or "")]
        return [leaf for name, sub in inner.items() for leaf in leaves(sub, f"{path} {name}")]

    for path, epilog in leaves(found, "polly-server"):
        assert path in epilog, path


def test_every_exit_code_is_told() -> None:
    """docs/commands.md has the codes of failures and of the signals that end a command."""
    table = (ROOT / "docs/commands.md").read_text().partition("**Exit codes.**")[2].partition("**Environment.**")[0]
    told = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE) for code in row.split(",")}
    ended = {128 + each for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)}
    assert told == {0, CommandError.code, UsageError.code, DeclinedError.code} | ended


def test_wrong_passwords_show_where_the_documents_say(server: Server) -> None:
    """At the token address of docker and at the API of polly, by the kinds that are named."""
    row = next(
        line for line in (ROOT / "docs/first-day.md").read_text().splitlines() if "guessing of passwords" in line
    )
    client = basic(server.port, "nobody@acme.example", "wrong")

    def refused() -> dict[str, float]:
        found: dict[str, float] = dict.fromkeys(re.findall(r'kind="(\w+)"', row), 0)
        for line in client.get("/metrics").body.decode().splitlines():
            if line.startswith("polly_requests_total{") and 'status="401"' in line:
                kind = line.partition('kind="')[2].partition('"')[0]
                if kind in found:
                    found[kind] += float(line.rpartition(" ")[2])
        return found

    before = refused()
    assert client.get("/token?service=x").status == 401
    assert client.get("/api/v1/me").status == 401
    for _ in range(100):  # a request is counted when its answer is on its way
        after = refused()
        if risen := {kind for kind in after if after[kind] > before[kind]} == {"token", "api"}:
            break
    assert risen
    watched = next(line for line in (ROOT / "docs/operations.md").read_text().splitlines() if "guessing" in line)
    assert "`token`" in watched
    assert "`api`" in watched


def test_a_secret_for_docker_is_not_the_variable_of_polly() -> None:
    """A token of scope registry under the name POLLY_TOKEN would be sent by every command of polly, and refused."""
    text = (ROOT / "docs/clients.md").read_text()
    assert "REGISTRY_TOKEN" in text
    assert not re.search(r"\$\{?POLLY_TOKEN|secrets\.POLLY_TOKEN|(?:secret|variable) `POLLY_TOKEN`", text)


def test_the_code_names_the_document_of_events() -> None:
    """The document that api_types.py names lists every event of the audit log."""
    name = re.findall(r"docs/(\S+\.md) lists all of them", (ROOT / "src/polly_dockers/api_types.py").read_text())
    assert len(name) == 1
    text = (ROOT / "docs" / name[0]).read_text()
    assert [event.value for event in Event if f"`{event.value}`" not in text] == []
