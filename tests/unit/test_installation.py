"""Installing from this repository: what the package contains, with the server and without it."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def needed() -> set[Path]:
    """The packages that the client commands need, as installed here: those without an extra, and their own."""
    todo, seen, found = ["polly-dockers"], set[str](), set[Path]()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        for text in importlib.metadata.requires(name) or []:
            wanted = Requirement(text)
            if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
                todo.append(wanted.name)
        if name != "polly-dockers":
            files = importlib.metadata.files(name) or []
            parts = {file.parts[0] for file in files if file.parts[0] not in {"..", "__pycache__"}}
            found |= {Path(str(importlib.metadata.distribution(name).locate_file(part))) for part in parts}
    return found


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands after ``pip install .`` in a new environment."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(wheel, check=True, timeout=120)
    venv.create(folder / "venv", with_pip=False)
    [packages] = (folder / "venv" / "lib").glob("python*/site-packages")
    [made] = folder.glob("polly_dockers-*.whl")
    python = folder / "venv" / "bin" / "python"
    subprocess.run([*pip, "--python", str(python), "install", "--no-deps", "--no-index", str(made)], check=True)
    for path in needed():
        (packages / path.name).symlink_to(path)
    return folder / "venv" / "bin"


@pytest.mark.parametrize("command", [("polly", "--version"), ("polly", "dockers", "list", "--help")], ids=" ".join)
def test_the_commands_of_clients_work(clients: Path, command: tuple[str, ...]) -> None:
    """Each of them runs without the server's libraries."""
    program, *arguments = command
    done = subprocess.run([clients / program, *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [(), ("--help",), ("run", "--demo")])
def test_the_server_says_what_it_lacks(clients: Path, arguments: tuple[str, ...]) -> None:
    """The error is one line, with the command that installs what is missing."""
    done = subprocess.run(
        [clients / "polly-server", *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("Error: The server is not installed here")
    assert "pip install '.[server]'" in line


def test_what_the_documents_install_is_this_repository() -> None:
    """Every line with pip install names the repository, because no package of that name is published yet."""
    for file in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for wanted in re.findall(r"pip install ([^`#\n]*)", file.read_text()):
            what = [word for word in wanted.split() if not word.startswith("-")]
            assert what[0] in {".", "'.[server]'", "requirements/server.txt"}, f"{file.name}: pip install {wanted}"
