"""Processes that a benchmark starts: their start, their end, and what they use, children included."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TICK: Final = os.sysconf("SC_CLK_TCK")
PATIENCE: Final = 60.0
"""Seconds that a server may take to start or to end."""


def tree(pid: int) -> list[int]:
    """The process and all below it that live."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for one in found:
        found.extend(parents.get(one, ()))
    return found


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; none where the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def cpu_seconds(pid: int) -> float:
    """CPU seconds of the process and of all below it, those included that have ended."""
    return sum(sum(map(int, fields[11:15])) for one in tree(pid) if (fields := _stat(one))) / TICK


def status(pid: int, name: str) -> int:
    """Bytes that a line of /proc/PID/status says, such as VmHWM; 0 where the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:")), 0)


def peaks(pid: int) -> list[int]:
    """Peak resident bytes of the process and of each one below it; shared pages are counted in each."""
    return [status(one, "VmHWM") for one in tree(pid)]


def listener(port: int) -> int:
    """The process that listens on a port of this machine. Raises RuntimeError if there is none that can be seen."""
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()]
    inodes = {fields[9] for fields in lines if fields[3] == "0A" and fields[1].endswith(f":{port:04X}")}
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if link.readlink().name.removeprefix("socket:[").removesuffix("]") in inodes:
                return int(link.parts[2])
    msg = f"Nothing listens on port {port} of this machine, or its process can't be seen."
    raise RuntimeError(msg)


def forget_peaks(pid: int) -> None:
    """Let the peaks begin anew (proc(5), clear_refs: 5)."""
    for one in tree(pid):
        Path(f"/proc/{one}/clear_refs").write_text("5")


class Meter:
    """What a server uses while the block runs: CPU seconds and peak bytes, and how long it took."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.seconds = self.cpu = 0.0
        self.memory = self.largest = 0

    def __enter__(self) -> Self:
        """Begin to count."""
        forget_peaks(self._pid)
        self._cpu = cpu_seconds(self._pid)
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        """Count what was used."""
        self.seconds = time.perf_counter() - self._start
        self.cpu = cpu_seconds(self._pid) - self._cpu
        every = peaks(self._pid)
        self.memory, self.largest = sum(every), max(every)


class Process:
    """A server that runs until it is stopped; what it says goes to a file."""

    def __init__(self, command: Sequence[str], log: Path, ready: Callable[[], bool]) -> None:
        self._log = log
        with log.open("ab") as file:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        self.pid = self._process.pid
        deadline = time.monotonic() + PATIENCE
        while not ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                msg = f"{command[0]} does not start:\n{log.read_text(errors='replace')[-2000:]}"
                raise RuntimeError(msg)
            time.sleep(0.002)

    def stop(self) -> None:
        """End it by SIGTERM, by SIGKILL where that takes too long."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()


def together(pid: int, commands: Sequence[Sequence[str]], jobs: Sequence[str]) -> Meter:
    """Run clients that begin together; what the server used while they ran, and how long that was by their clock.

    Each is given its job as a line, says ``ready``, begins at the next line, and says when it began and ended by
    time.monotonic. Raises RuntimeError where one fails.
    """
    with contextlib.ExitStack() as stack:
        clients = []
        for command, job in zip(commands, jobs, strict=True):
            client = stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            clients.append(client)
            _tell(client, job)
            assert client.stdout is not None  # noqa: S101 - it is a pipe
            client.stdout.readline()
        with Meter(pid) as meter:
            for client in clients:
                _tell(client, "")
            said = [client.communicate()[0].split() for client in clients]
    if any(client.returncode for client in clients):
        msg = f"{' '.join(commands[0][:4])} failed: an answer is not what it has to be"
        raise RuntimeError(msg)
    meter.seconds = max(float(end) for _, end in said) - min(float(start) for start, _ in said)
    return meter


def _tell(client: subprocess.Popen[str], line: str) -> None:
    assert client.stdin is not None  # noqa: S101 - it is a pipe
    client.stdin.write(f"{line}\n")
    client.stdin.flush()
