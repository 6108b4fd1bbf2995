"""Logs on stderr: one JSON object a line, or text for people.

Secrets never reach them: nothing logs a header, a query or a body, and what a client wrote is escaped.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import sys
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

if TYPE_CHECKING:
    from polly_dockers.config import Config

FLUSH: Final = 0.1
"""Seconds that lines of requests are gathered for, so that a request waits for no write."""

_encode: Final = msgspec.json.Encoder().encode


def _json(event: dict[str, Any], **_: object) -> bytes:
    return _encode(event)


def set_up(config: Config) -> None:
    """Write what is of ``log_level`` or above in the ``log_format``."""
    level = getattr(logging, config.log_level.upper())
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    wrapper = structlog.make_filtering_bound_logger(level)
    if config.log_format == "json":
        structlog.configure(
            processors=[*shared, structlog.processors.JSONRenderer(serializer=_json)],
            wrapper_class=wrapper,
            logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
            cache_logger_on_first_use=True,
        )
    else:
        structlog.configure(
            processors=[*shared, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())],
            wrapper_class=wrapper,
            logger_factory=structlog.PrintLoggerFactory(sys.stderr),
            cache_logger_on_first_use=True,
        )


class RequestLog:
    """A line for each request, where the level is ``info`` or ``debug``."""

    def __init__(self, config: Config) -> None:
        self._on = config.log_level in {"info", "debug"}
        self._text = structlog.get_logger("polly.request") if config.log_format == "text" else None
        self._lines: list[bytes] = []

    def add(self, **fields: object) -> None:
        """Note a request; it is written within FLUSH."""
        if not self._on:
            return
        if self._text is not None:
            self._text.info("request", **fields)
            return
        if not self._lines:
            asyncio.get_running_loop().call_later(FLUSH, self.flush)
        at = dt.datetime.now(dt.UTC).isoformat()
        self._lines.append(_encode({"event": "request", "level": "info", "timestamp": at, **fields}))

    def flush(self) -> None:
        """Write what was gathered."""
        lines, self._lines = self._lines, []
        if lines:
            sys.stderr.buffer.write(b"\n".join(lines) + b"\n")
            sys.stderr.buffer.flush()
