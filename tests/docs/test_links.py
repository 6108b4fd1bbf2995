"""Documents lead to each other and are readable: links have targets, the README leads to all, lines are short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECORDS = sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|<img[^>]* src=\"([^\"]+)\"|srcset=\"([^\"]+)\"")
_PATH = re.compile(
    r"`((?:tests|scripts|benchmarks|docs|requirements)/[\w./-]+|[a-z_]+(?:/[a-z0-9_]+)*/[a-z0-9_]+\.py)`"
)
_FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
_FIGURES = re.compile(r"^<!-- From here.*?^<!-- The end[^\n]*", re.MULTILINE | re.DOTALL)
WIDTH = 120
"""Characters of a line of a document, at most. Tables, examples and measured figures may be wider."""


def name(path: Path) -> str:
    """The path below the repository's folder."""
    return str(path.relative_to(ROOT))


def links(document: Path) -> list[str]:
    """The targets of a document's links to files, with their anchors."""
    text = _FENCE.sub("", document.read_text(encoding="utf-8"))
    found = ["".join(groups) for groups in _LINK.findall(text)]
    return [target for target in found if not re.match(r"https?:", target)]


def linked(document: Path) -> set[Path]:
    """The files that a document links to."""
    return {(document.parent / target.partition("#")[0]).resolve() for target in links(document)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_lead_to_files_and_headings(document: Path) -> None:
    """Each link names a file of the repository, and a heading that the file has."""
    for target in links(document):
        file, _, anchor = target.partition("#")
        path = document.parent / file if file else document
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}, target


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_files_that_are_named_exist(document: Path) -> None:
    """A path of a test, a script or a module in backticks is a file or folder of the repository."""
    text = _FENCE.sub("", document.read_text(encoding="utf-8"))
    named = {path.rstrip("/") for path in _PATH.findall(text)}
    places = (ROOT, ROOT / "src/polly_dockers")
    missing = {path for path in named if not any((place / path).exists() for place in places)}
    assert missing == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_lines_are_short(document: Path) -> None:
    """A line of prose has at most WIDTH characters."""
    prose = _FIGURES.sub("", _FENCE.sub("", document.read_text(encoding="utf-8")))
    assert [line for line in prose.splitlines() if len(line) > WIDTH and not line.lstrip().startswith("|")] == []


def test_every_document_is_found_from_the_readme() -> None:
    """Whoever follows the links of README.md comes to each document."""
    seen: set[Path] = set()
    waiting = {ROOT / "README.md"}
    while waiting:
        document = waiting.pop()
        seen.add(document)
        waiting |= {path for path in linked(document) if path.suffix == ".md"} - seen
    assert [name(path) for path in DOCUMENTS if path not in seen] == []


@pytest.mark.parametrize("record", RECORDS, ids=name)
def test_every_decision_is_listed_under_its_title(record: Path) -> None:
    """docs/decisions/README.md lists each record by its number and title, and each record has the four parts."""
    text = record.read_text(encoding="utf-8")
    number = record.name.partition("-")[0]
    title = text.partition("\n")[0].removeprefix(f"# {int(number)}. ")
    assert f"| {number} | [{title}]({record.name}) |" in (record.parent / "README.md").read_text(encoding="utf-8")
    for part in ("Context", "Decision", "Consequences", "Measurements"):
        assert f"\n## {part}\n" in text, part


def test_decisions_are_numbered_without_gaps() -> None:
    """The numbers of the records are 1, 2, 3 and so on."""
    assert [int(path.name[:4]) for path in RECORDS] == list(range(1, len(RECORDS) + 1))
