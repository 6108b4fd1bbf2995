"""What an operator watches, as Prometheus reads it. The processes of a server share files for their counts.

``PROMETHEUS_MULTIPROC_DIR`` has to be set before this module is imported; ``server.run`` does.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

REQUESTS: Final = Counter("polly_requests_total", "Requests answered.", ["kind", "method", "status"])
SECONDS: Final = Histogram(
    "polly_request_seconds",
    "Time to answer a request, its body included.",
    ["kind", "method"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600),
)
RECEIVED: Final = Counter("polly_received_bytes_total", "Bytes of request bodies that were announced.")
SENT: Final = Counter("polly_sent_bytes_total", "Bytes of bodies that were answered.")
IN_FLIGHT: Final = Gauge("polly_requests_in_flight", "Requests that are being answered.", multiprocess_mode="livesum")

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST


def exposition() -> bytes:
    """The counts of all processes, in the text format."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
