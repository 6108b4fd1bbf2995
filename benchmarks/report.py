"""What was measured, as a table, as a chart, and as a page of the documents."""

from __future__ import annotations

import datetime as dt
import os
import platform
import shutil
import statistics
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.figures import short

if TYPE_CHECKING:
    from benchmarks.figures import Cost, Figure, Result
    from benchmarks.scale import Scale

BEGIN: Final = "<!-- From here to the end of the figures, scripts/bench writes. -->"
END: Final = "<!-- The end of the figures. -->"

BAR, LEFT, WIDTH, LINE, TOP = 14, 330, 820, 26, 40
MB: Final = 1e6
TIMES: Final = "\N{MULTIPLICATION SIGN}"
TITLE: Final = "Times as good as docker-registry 2.8.2 in the same run; the mark is the goal"


def table(results: list[Result]) -> str:
    """The figures of all rows."""
    lines = [
        "| work | figure | Polly | compared with | ratio (least to most) | goal | |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        lines += [_line(result.row, figure) for figure in result.figures]
    return "\n".join(lines)


def _line(row: str, figure: Figure) -> str:
    sign = "≥" if figure.at_least else "≤"
    goal = f"{sign} {short(figure.goal)}{f' {TIMES}' if figure.kind == 'ratio' else f' {figure.unit}'.rstrip()}"
    mine = f"{short(statistics.median(figure.polly))} {figure.unit}".strip()
    beside = ratio = ""
    if figure.other:
        beside = f"{figure.beside}: {short(statistics.median(figure.other))} {figure.unit}".strip()
        least, most = short(min(figure.ratios)), short(max(figure.ratios))
        ratio = f"{short(statistics.median(figure.ratios))} {TIMES} ({least} to {most})"
    verdict = "reached" if figure.reached else "**missed**"
    if figure.worse:
        verdict += f", **worse than {figure.beside}**"
    return f"| {row} | {figure.what} | {mine} | {beside} | {ratio} | {goal} | {verdict} |"


def costs(results: list[Result]) -> str:
    """What the rates cost the servers."""
    lines = ["| work | server | rate | CPU | CPU of a sample | peak memory |", "|---|---|---|---|---|---|"]
    lines += [_cost(result.row, cost) for result in results for cost in result.costs]
    return "\n".join(lines)


def _cost(row: str, cost: Cost) -> str:
    return f"| {row} | {cost.server} | {cost.rate} | {cost.cpu_each} | {cost.cpu:.2f} s | {cost.memory / MB:.0f} MB |"


def remarks(results: list[Result]) -> str:
    """What has to be known beside the figures."""
    return "\n".join(f"- {result.row}: {remark}" for result in results for remark in result.remarks)


def machine(scale: Scale) -> str:
    """Where, when and with which versions it was measured."""
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "",
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    versions = [
        f"Python {platform.python_version()}",
        _version("docker-registry", "--version"),
        _version("nginx", "-v"),
        _version("wrk", "--version"),
        _version("dockerd", "--version"),
    ]
    commit = _said("git", "describe", "--always", "--dirty") or "no commit"
    return (
        f"Measured on {dt.datetime.now(dt.UTC):%Y-%m-%d} at {commit}, {scale.name} run of {scale.pairs} pairs: "
        f"{os.cpu_count()} cores ({cpu}), {memory:.0f} GB of memory, Linux {platform.release()}; "
        f"{', '.join(version for version in versions if version)}. The clients were on the same machine and cores."
    )


def _version(command: str, option: str) -> str:
    lines = _said(command, option).splitlines()
    return next((line.strip().split(" Copyright")[0] for line in lines if any(mark.isdigit() for mark in line)), "")


def _said(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip()


def chart(results: list[Result]) -> str:
    """Bars: Polly to docker-registry, pair by pair; the mark is the goal. More is better: costs stand upside down."""
    bars = [
        (f"{result.row}, {figure.what}", figure)
        for result in results
        for figure in result.figures
        if figure.ratios and figure.beside == "docker-registry"
    ]
    values = [
        (name, _gain(figure, statistics.median(figure.ratios)), _gain(figure, figure.goal)) for name, figure in bars
    ]
    most = max([1.0, *(max(value, goal) for _, value, goal in values)])
    height = TOP + LINE * len(values) + 20
    unit = (WIDTH - LEFT - 60) / most
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif"',
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="10" y="20" font-size="14">{TITLE}</text>',
        f'<line x1="{LEFT + unit:.1f}" y1="{TOP - 8}" x2="{LEFT + unit:.1f}" y2="{height - 14}"',
        'stroke="#999" stroke-dasharray="3 3"/>',
    ]
    for at, (name, value, goal) in enumerate(values):
        y = TOP + LINE * at
        colour = "#2a7f62" if value >= goal else "#c77d0a" if value >= 1 else "#b3261e"
        mark = LEFT + goal * unit
        parts += [
            f'<text x="{LEFT - 8}" y="{y + 11}" text-anchor="end">{name}</text>',
            f'<rect x="{LEFT}" y="{y}" width="{value * unit:.1f}" height="{BAR}" fill="{colour}"/>',
            f'<line x1="{mark:.1f}" y1="{y - 3}" x2="{mark:.1f}" y2="{y + BAR + 3}" stroke="#000" stroke-width="2"/>',
            f'<text x="{LEFT + max(value, goal) * unit + 6:.1f}" y="{y + 11}">{short(value)} {TIMES}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def _gain(figure: Figure, ratio: float) -> float:
    return ratio if figure.at_least else 1 / ratio


def write(page: Path, scale: Scale, results: list[Result]) -> None:
    """Put the figures into their place on the page, and the chart beside it; what people wrote stays."""
    text = page.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    figures = [BEGIN, "", machine(scale), "", table(results), "", remarks(results), "", costs(results), "", END]
    page.write_text(before + "\n".join(figures) + after)
    page.with_suffix(".svg").write_text(chart(results))
