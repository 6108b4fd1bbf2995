"""Logs on stderr: one JSON object a line, or text for people.

Secrets never reach them: nothing logs a header, a query or a body, and what a client wrote is escaped.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import sys
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TextIO, cast

import msgspec
import structlog

from polly_dockers.log_writer import STDERR

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from polly_dockers.config import Config

FLUSH: Final = 0.1
"""Seconds that lines of requests are gathered for, so that a request waits for no write."""

_encode: Final = msgspec.json.Encoder().encode
_encode_lines: Final = msgspec.json.Encoder().encode_lines


def _json(event: dict[str, Any], **_: object) -> bytes:
    return _encode(event)


def _encoded(_logger: object, _method: str, text: Any) -> bytes:  # noqa: ANN401 - as ConsoleRenderer gives it
    return str(text).encode("utf-8", "backslashreplace")


def _escaped(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """For text: what is not printed is written as Python writes it, so that no client's path steers a terminal."""
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            lines = value.split("\n") if name == "exception" else [value]
            event[name] = "\n".join("".join(map(_printed, line)) for line in lines)
    return event


def _printed(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def set_up(config: Config) -> None:
    """Write what is of ``log_level`` or above in the ``log_format``."""
    level = getattr(logging, config.log_level.upper())
    logging.basicConfig(
        stream=cast("TextIO", STDERR), level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
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
            logger_factory=structlog.BytesLoggerFactory(cast("BinaryIO", STDERR)),
            cache_logger_on_first_use=True,
        )
    else:
        structlog.configure(
            processors=[*shared, _escaped, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()), _encoded],
            wrapper_class=wrapper,
            logger_factory=structlog.BytesLoggerFactory(cast("BinaryIO", STDERR)),
            cache_logger_on_first_use=True,
        )


class RequestLine(msgspec.Struct):
    """What the log says of a request."""

    request_id: str
    method: str
    path: str
    status: int
    ms: float
    received: int
    """Bytes of the request's body, as announced."""
    sent: int
    user: int | None
    address: str
    event: str = "request"
    level: str = "info"
    timestamp: dt.datetime = msgspec.field(default_factory=lambda: dt.datetime.now(dt.UTC))


class RequestLog:
    """A line for each request, where the level is ``info`` or ``debug``."""

    def __init__(self, config: Config) -> None:
        self.on = config.log_level in {"info", "debug"}
        self._text = structlog.get_logger("polly.request") if config.log_format == "text" else None
        self._lines: list[RequestLine] = []

    def add(self, line: RequestLine) -> None:
        """Note a request; it is written within FLUSH."""
        if not self._lines:
            asyncio.get_running_loop().call_later(FLUSH, self.flush)
        self._lines.append(line)

    def flush(self) -> None:
        """Write what was gathered."""
        lines, self._lines = self._lines, []
        if self._text is not None:
            for line in lines:
                fields = msgspec.structs.asdict(line)
                self._text.info(fields.pop("event"), **fields)
        elif lines:
            STDERR.write(_encode_lines(lines))
