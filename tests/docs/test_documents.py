"""The documents say what the program does."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from typer.main import get_command

from polly_dockers import __version__
from polly_dockers.config import Config
from polly_dockers.server import app

ROOT = Path(__file__).parents[2]


def test_configuration_lists_every_setting_with_its_default() -> None:
    """docs/configuration.md has a row for each field of Config, with the default that it has."""
    text = (ROOT / "docs/configuration.md").read_text()
    rows = dict(re.findall(r"^\| (`[^|]+`) \| ([^|]+) \|", text, re.MULTILINE))
    documented = {name: default.strip() for names, default in rows.items() for name in re.findall(r"`(\w+)`", names)}
    expected = {setting.name: setting.default for setting in dataclasses.fields(Config)}
    assert documented.keys() == expected.keys()
    for name, default in expected.items():
        if default not in {None, "", ()}:
            assert documented[name] == f"`{default}`", name


def test_every_setting_is_an_option_of_run() -> None:
    """polly-server run takes each setting as an option of its name."""
    command = get_command(app).commands["run"]  # type: ignore[attr-defined]
    options = {option.name for option in command.params}
    assert {setting.name for setting in dataclasses.fields(Config)} <= options


def test_the_changelog_names_this_version() -> None:
    """CHANGELOG.md has a section for the version that the package has."""
    assert f"\n## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_architecture_names_every_module() -> None:
    """docs/architecture.md has each file and folder of the package, so that a newcomer finds the right one."""
    text = (ROOT / "docs/architecture.md").read_text()
    package = ROOT / "src/polly_dockers"
    names = [f"{path.name}/" if path.is_dir() else path.name for path in package.iterdir()]
    missing = [name for name in names if not name.startswith("__") and name not in text]
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
