"""How long ``polly --help`` and ``docker-credential-polly get`` from a fresh cache take, as a person waits for them.

    python benchmarks/cli_startup.py

The limits are those of the project: 150 ms and 60 ms on a machine of 2 cores. Exit code 1 where the median is over.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS = 31
SERVER, TOKEN = "https://registry.acme.example", "polly_benchmark"
CASES = {
    "polly --help": (["polly_dockers.cli.main", "--help"], "", 150),
    "docker-credential-polly get": (["polly_dockers.cli.credential_helper", "get"], "registry.acme.example", 60),
}


def main() -> int:
    """Measure both, print a line for each, and return the exit code."""
    with tempfile.TemporaryDirectory() as home:
        env = environment(Path(home))
        slow = 0
        for name, (arguments, stdin, limit) in CASES.items():
            times = sorted(milliseconds([sys.executable, "-m", *arguments], stdin, env) for _ in range(RUNS))
            middle = statistics.median(times)
            print(f"{name}: median {middle:.0f} ms, fastest {times[0]:.0f}, slowest {times[-1]:.0f}; limit {limit} ms")
            slow += middle > limit
    return 1 if slow else 0


def environment(home: Path) -> dict[str, str]:
    """Return an environment with a signed-in server and a cached registry token, in a home folder of its own."""
    profile = {"server": SERVER, "registry": "registry.acme.example", "email": "ann@acme.example", "token": TOKEN}
    profile["expires_at"] = "2099-01-01T00:00:00Z"
    made = {"time": time.time(), "boot": "", "uptime": 0}
    cached = {"id": "1", "token": "polly_cached", "lasts": 3600, "made": made}
    name = hashlib.sha256(f"{SERVER}\n{TOKEN}".encode()).hexdigest()[:32]
    for path, document in (
        (home / "config/polly/profiles.json", {"current": "acme", "profiles": {"acme": profile}}),
        (home / f"cache/polly/registry-tokens/{name}.json", cached),
    ):
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(document))
    folders = {"XDG_CONFIG_HOME": str(home / "config"), "XDG_CACHE_HOME": str(home / "cache")}
    kept = {key: value for key, value in os.environ.items() if not key.startswith("POLLY_")}
    return kept | folders


def milliseconds(command: list[str], stdin: str, env: dict[str, str]) -> float:
    """Return how long the command took, which must work."""
    start = time.perf_counter()
    subprocess.run(command, input=stdin.encode(), env=env, stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - start) * 1000


if __name__ == "__main__":
    sys.exit(main())
