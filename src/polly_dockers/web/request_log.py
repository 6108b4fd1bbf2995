"""The log of requests. Each has one line; the lines of a moment are written together."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from polly_dockers.system.log_writer import STDERR

if TYPE_CHECKING:
    from polly_dockers.config import Config

FLUSH: Final = 0.1
"""Seconds for which lines are collected, so that no request waits for a write."""

_encode_lines: Final = msgspec.json.Encoder().encode_lines


class RequestLine(msgspec.Struct):
    """The log line of a request."""

    request_id: str
    method: str
    path: str
    status: int
    ms: float
    received: int
    """Bytes of the request's body that arrived."""
    sent: int
    user: int | None
    address: str
    event: str = "request"
    level: str = "info"
    timestamp: dt.datetime = msgspec.field(default_factory=lambda: dt.datetime.now(dt.UTC))


class RequestLog:
    """Collects and writes the lines. It is on if the log level is ``info`` or ``debug``."""

    def __init__(self, config: Config) -> None:
        self.on = config.log_level in {"info", "debug"}
        self._text = structlog.get_logger("polly.request") if config.log_format == "text" else None
        self._lines: list[RequestLine] = []

    def append(self, line: RequestLine) -> None:
        """Add a line, which is written within FLUSH seconds."""
        if not self._lines:
            asyncio.get_running_loop().call_later(FLUSH, self.flush)
        self._lines.append(line)

    def flush(self) -> None:
        """Write the collected lines."""
        lines, self._lines = self._lines, []
        if self._text is not None:
            for line in lines:
                fields = msgspec.structs.asdict(line)
                self._text.info(fields.pop("event"), **fields)
        elif lines:
            STDERR.write(_encode_lines(lines))
