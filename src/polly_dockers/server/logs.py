"""Logs on stderr: one JSON object per line, or text for people.

They hold no secrets: nothing logs a header, a query or a body. What a client sent is escaped.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TextIO, cast

import msgspec
import structlog

from polly_dockers.system.log_writer import STDERR

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from polly_dockers.config import Config

_encode: Final = msgspec.json.Encoder().encode


def _json(event: dict[str, Any], **_: object) -> bytes:
    return _encode(event)


def _encoded(_logger: object, _method: str, text: Any) -> bytes:  # noqa: ANN401 - as ConsoleRenderer gives it
    return str(text).encode("utf-8", "backslashreplace")


def _escaped(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """For text: escape characters that are not printable, so that no client's path controls a terminal."""
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            lines = value.split("\n") if name == "exception" else [value]
            event[name] = "\n".join("".join(map(_printed, line)) for line in lines)
    return event


def _printed(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def set_up(config: Config) -> None:
    """Log what has ``log_level`` or is more severe, in the form of ``log_format``."""
    level = getattr(logging, config.log_level.upper())
    logging.basicConfig(
        stream=cast("TextIO", STDERR), level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    if config.log_format == "json":
        rendering: list[Any] = [structlog.processors.JSONRenderer(serializer=_json)]
    else:
        rendering = [_escaped, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()), _encoded]
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.BytesLoggerFactory(cast("BinaryIO", STDERR)),
        cache_logger_on_first_use=True,
    )
