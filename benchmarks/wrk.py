"""Load on 16 connections from this machine: ``wrk`` with one thread, and a program of our own for HEAD."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks.client import Unexpected
from benchmarks.figures import Sample
from benchmarks.processes import Meter

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.registries import Registry

CONNECTIONS: Final = 16

SCRIPT: Final = """\
wrk.method = "{method}"
{headers}
done = function(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format(
        '\\nRESULT {{"requests": %d, "bytes": %d, "microseconds": %d, "bad": %d, "p50": %f, "p99": %f}}\\n',
        summary.requests, summary.bytes, summary.duration,
        errors.connect + errors.read + errors.write + errors.status + errors.timeout,
        latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True)
class Load:
    """What wrk is to do."""

    method: str
    path: str
    headers: dict[str, str]
    seconds: int
    least: int = 0
    """Bytes that an answer has at least: the size of the content that was checked before."""


def run(registry: Registry, load: Load, folder: Path) -> Sample:
    """Run wrk against a server. Raises Unexpected for an answer that is no success, or shorter than it has to be."""
    script = folder / "wrk.lua"
    lines = "\n".join(f"wrk.headers[{json.dumps(name)}] = {json.dumps(text)}" for name, text in load.headers.items())
    script.write_text(SCRIPT.format(method=load.method, headers=lines))
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{load.seconds}s", "--latency", "-s", str(script)]
    with Meter(registry.process.pid) as meter:
        done = subprocess.run(
            [*command, f"http://127.0.0.1:{registry.port}{load.path}"], capture_output=True, text=True, check=True
        )
    found = json.loads(done.stdout.rpartition("RESULT ")[2])
    if found["bad"] or found["bytes"] < found["requests"] * load.least:
        msg = f"wrk against {registry.name}: {found}"
        raise Unexpected(msg)
    seconds = found["microseconds"] / 1e6
    return Sample(found["requests"], seconds, meter.cpu, meter.memory, found["p99"] / 1e6)


def run_heads(registry: Registry, path: str, headers: dict[str, str], seconds: int, contains: str) -> Sample:
    """Ask for HEAD on 16 connections; raises CalledProcessError where an answer is not what it has to be."""
    command = [sys.executable, "-m", "benchmarks.heads", str(registry.port), path, str(seconds), str(CONNECTIONS)]
    with Meter(registry.process.pid) as meter:
        done = subprocess.run(
            [*command, contains], input=json.dumps(headers), capture_output=True, text=True, check=True
        )
    found = json.loads(done.stdout)
    return Sample(found["requests"], found["seconds"], meter.cpu, meter.memory, found["p99"])
