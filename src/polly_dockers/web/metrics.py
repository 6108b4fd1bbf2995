"""Metrics in the text format of Prometheus.

Each process counts in memory, and writes its counts to a file of its own once a second. The process that serves a
request for /metrics adds all files up. (The multiprocess mode of prometheus-client needs seven locked writes to mapped
files for each request.)
"""

from __future__ import annotations

import bisect
import contextlib
import errno
import os
import resource
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from polly_dockers.system.log_writer import STDERR

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prometheus_client import Metric

BUCKETS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0),
)
CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
EXPIRY: Final = "certificate.expiry"
"""The file in the shared folder with the time when the certificate expires, in seconds since 1970."""


def share(folder: Path, name: str, data: bytes) -> None:
    """Write a file in the folder that the processes of a server share. Raises OSError.

    Creates the folder if it is missing: a service manager may empty /dev/shm when a user's last session ends.
    """
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if folder.lstat().st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "another user's folder", str(folder))
    part = folder / f"{name}.part"
    part.write_bytes(data)
    part.rename(folder / name)


class Times(msgspec.Struct):
    """A histogram of durations."""

    seconds: float = 0.0
    buckets: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    """The number of durations in each bucket; the last is for longer ones."""

    def record(self, seconds: float) -> None:
        """Count a duration, in seconds."""
        self.seconds += seconds
        self.buckets[bisect.bisect_left(BUCKETS, seconds)] += 1


class Series(msgspec.Struct):
    """Counts of the requests of one kind, method and status.

    The kind is what the request is about, such as ``manifests`` or ``token``. ``web.app`` and ``v2.router`` set it.
    """

    kind: str
    method: str
    status: int
    received: int = 0
    sent: int = 0
    times: Times = msgspec.field(default_factory=Times)


class CollectorTotals(msgspec.Struct):
    """Totals of all garbage collections."""

    runs: int = 0
    blobs: int = 0
    bytes: int = 0
    uploads: int = 0
    purged: int = 0
    expired: int = 0
    at: float = 0.0
    """When the last run ended, in seconds since 1970."""
    waiting: int = 0
    """Files that wait for deletion, counted by the last run."""


class Snapshot(msgspec.Struct):
    """All counts of a process since its start."""

    in_flight: int
    cpu: float
    """CPU seconds, user and system."""
    memory: int
    """Resident bytes."""
    transactions: Times
    lag: Times
    collected: CollectorTotals
    series: list[Series]
    dropped: int = 0
    """Log lines that were dropped."""


class Counts:
    """The counts of this process."""

    def __init__(self, folder: Path, data: Path) -> None:
        """``folder``: shared by the processes of one server, new at each start. ``data``: the data folder."""
        self._folder = folder
        self._data = data
        self._series: dict[tuple[str, str, int], Series] = {}
        self.in_flight = 0
        self.transactions = Times()
        """Durations of the writer thread's transactions, with their sync. One transaction answers all requests that
        were waiting for it."""
        self.lag = Times()
        """How late timers run. Requests wait about as long."""
        self.collected = CollectorTotals()

    def record(self, kind: str, method: str, status: int, seconds: float, received: int, sent: int) -> None:
        """Count a finished request: its duration in seconds, and the bytes of both bodies."""
        series = self._series.get((kind, method, status))
        if series is None:
            series = self._series[kind, method, status] = Series(kind, method, status)
        series.received += received
        series.sent += sent
        series.times.record(seconds)

    def write(self) -> None:
        """Write the counts to the file of this process. Raises OSError."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        snapshot = Snapshot(
            in_flight=self.in_flight,
            cpu=used.ru_utime + used.ru_stime,
            memory=_resident(),
            transactions=self.transactions,
            lag=self.lag,
            collected=self.collected,
            series=list(self._series.values()),
            dropped=STDERR.dropped,
        )
        share(self._folder, f"{os.getpid()}.json", msgspec.json.encode(snapshot))

    def exposition(self) -> bytes:
        """The counts of all processes, in the text format."""
        with contextlib.suppress(OSError):  # a full disk: the previous file of this process counts
            self.write()
        snapshots = [
            (int(file.stem), msgspec.json.decode(file.read_bytes(), type=Snapshot))
            for file in self._folder.glob("*.json")
        ]
        registry = CollectorRegistry()
        registry.register(_Sum(snapshots, shutil.disk_usage(self._data), self._expiry()))
        return generate_latest(registry)

    def _expiry(self) -> float | None:
        """When the certificate expires, in seconds since 1970; None without one."""
        try:
            return float((self._folder / EXPIRY).read_text("ascii"))
        except (OSError, ValueError):
            return None


def _resident() -> int:
    """Resident memory of this process, in bytes."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * resource.getpagesize()
    except OSError:  # without /proc: the highest value since the start
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


class _Sum(Collector):
    """Adds the snapshots of all processes up.

    Counters include processes that have ended. Requests in progress and memory are those of living processes only.
    """

    def __init__(self, snapshots: list[tuple[int, Snapshot]], disk: tuple[int, int, int], expiry: float | None) -> None:
        self._snapshots = snapshots
        self._expiry = expiry
        self._disk = disk

    def collect(self) -> Iterable[Metric]:
        requests = CounterMetricFamily("polly_requests", "Finished requests.", labels=["kind", "method", "status"])
        received = CounterMetricFamily("polly_received_bytes", "Bytes of request bodies received.", labels=["kind"])
        sent = CounterMetricFamily("polly_sent_bytes", "Bytes of response bodies sent.", labels=["kind"])
        seconds = HistogramMetricFamily(
            "polly_request_seconds", "Time from the request to the end of its response.", labels=["kind", "method"]
        )
        flight = GaugeMetricFamily("polly_requests_in_flight", "Requests in progress.")
        every = [series for _, snapshot in self._snapshots for series in snapshot.series]
        for key in sorted({(series.kind, series.method, series.status) for series in every}):
            same = [series for series in every if (series.kind, series.method, series.status) == key]
            requests.add_metric([key[0], key[1], str(key[2])], sum(sum(series.times.buckets) for series in same))
        for pair in sorted({(series.kind, series.method) for series in every}):
            same = [series for series in every if (series.kind, series.method) == pair]
            seconds.add_metric(list(pair), *_histogram([series.times for series in same]))
        for kind in sorted({series.kind for series in every}):
            received.add_metric([kind], sum(series.received for series in every if series.kind == kind))
            sent.add_metric([kind], sum(series.sent for series in every if series.kind == kind))
        living = [snapshot for pid, snapshot in self._snapshots if Path(f"/proc/{pid}").exists()]
        flight.add_metric([], sum(snapshot.in_flight for snapshot in living))
        return [requests, received, sent, seconds, flight, *self._of_processes()]

    def _of_processes(self) -> Iterable[Metric]:
        every = [snapshot for _, snapshot in self._snapshots]
        transactions = HistogramMetricFamily(
            "polly_db_transaction_seconds", "Time of a writing transaction of the database, with its sync to the disk."
        )
        transactions.add_metric([], *_histogram([snapshot.transactions for snapshot in every]))
        lag = HistogramMetricFamily("polly_loop_lag_seconds", "How late an event loop runs its timers.")
        lag.add_metric([], *_histogram([snapshot.lag for snapshot in every]))
        memory = GaugeMetricFamily("polly_resident_bytes", "Memory of a worker process.", labels=["pid"])
        for pid, snapshot in self._snapshots:
            if Path(f"/proc/{pid}").exists():
                memory.add_metric([str(pid)], snapshot.memory)
        cpu, dropped = sum(snapshot.cpu for snapshot in every), sum(snapshot.dropped for snapshot in every)
        yield transactions
        yield lag
        yield CounterMetricFamily("polly_cpu_seconds", "CPU time of all worker processes.", cpu)
        yield memory
        yield GaugeMetricFamily("polly_disk_free_bytes", "Free space on the disk of the data folder.", self._disk[2])
        yield GaugeMetricFamily("polly_disk_size_bytes", "Size of the disk of the data folder.", self._disk[0])
        yield CounterMetricFamily("polly_log_dropped_lines", "Log lines dropped because nothing read the log.", dropped)
        if self._expiry is not None:
            name = "polly_tls_certificate_expiry_timestamp_seconds"
            yield GaugeMetricFamily(name, "When the TLS certificate expires.", self._expiry)
        yield from self._of_garbage()

    def _of_garbage(self) -> Iterable[Metric]:
        every = [snapshot.collected for _, snapshot in self._snapshots]
        for name, text, values in (
            ("runs", "Finished garbage collections.", (each.runs for each in every)),
            ("blobs", "Unused blobs deleted.", (each.blobs for each in every)),
            ("freed_bytes", "Bytes deleted.", (each.bytes for each in every)),
            ("uploads", "Abandoned uploads deleted.", (each.uploads for each in every)),
            ("purged", "Items purged from the trash.", (each.purged for each in every)),
            ("expired", "Manifests moved to the trash by a policy.", (each.expired for each in every)),
        ):
            yield CounterMetricFamily(f"polly_gc_{name}", text, sum(values))
        last = max(every, key=lambda each: each.at, default=CollectorTotals())
        ended, waiting = "polly_gc_last_run_timestamp_seconds", "polly_gc_waiting_blobs"
        yield GaugeMetricFamily(ended, "When the last collection ended; 0 if none has.", last.at)
        yield GaugeMetricFamily(waiting, "Deleted blobs whose bytes wait for a later run.", last.waiting)


def _histogram(every: Sequence[Times]) -> tuple[list[tuple[str, float]], float]:
    """Cumulative buckets, and the sum of all durations in seconds."""
    total, buckets = 0, []
    for at, bound in enumerate([*map(str, BUCKETS), "+Inf"]):
        total += sum(item.buckets[at] for item in every)
        buckets.append((bound, float(total)))
    return buckets, sum(item.seconds for item in every)
