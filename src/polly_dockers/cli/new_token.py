"""A new access token, which is revoked if nobody receives it.

Something may fail between the server's response and the moment when somebody has the token: a file that can't be
written, a full disk, Ctrl-C, SIGTERM, a closed terminal. Then the token is revoked, so that no unknown one is left.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from typing import TYPE_CHECKING

from polly_dockers.cli.client import Client
from polly_dockers.cli.errors import CommandError
from polly_dockers.system import process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from polly_dockers import api_types

GRACE = 3.0
"""Seconds that an interrupted command waits for the server's response, so that it can revoke the token in it."""
_LONGEST = 200
"""Characters that the server accepts as a label."""
_INTERVAL = 0.1
"""Seconds between two checks for a held signal."""


@contextlib.contextmanager
def new_token(
    client: Client, scope: api_types.TokenScope, lifetime: int, label: str, replaces: str | None = None
) -> Iterator[api_types.TokenCreated]:
    """Yield a new access token with a lifetime in seconds; if the block raises an exception, the token is revoked.

    ``replaces`` is a token that the server revokes at once. Then signals wait for the end of the block, because an
    interrupted person would be left without either token. Raises CommandError.
    """
    nothing: list[int] = []
    signals: contextlib.AbstractContextManager[list[int]] = contextlib.nullcontext(nothing)
    if replaces:
        signals = process.held_signals()
    with signals as held:
        created = _made(client, scope, lifetime, label, replaces, held)
        with undone_unless_handed_out(lambda: end(client, created)):
            yield created


@contextlib.contextmanager
def undone_unless_handed_out(undo: Callable[[], None]) -> Iterator[None]:
    """Run ``undo`` if the block, which prints a secret, raises an exception or its output can't be written.

    If the server can't be reached any more, the secret, which nobody knows, expires.
    """
    try:
        yield
        sys.stdout.flush()
    except BaseException:
        with contextlib.suppress(CommandError):
            undo()
        raise


def on_this_machine(what: str) -> str:
    """Return a label for a token: its purpose and the name of this machine, cut to the length of a label."""
    text = f"{what} on {socket.gethostname()}"[:_LONGEST]
    return "".join(each if each.isprintable() else "?" for each in text)


def end(client: Client, created: api_types.TokenCreated) -> None:
    """Revoke a token that nobody received; if that fails too, it expires."""
    with contextlib.suppress(CommandError):
        if created.scope == "full":
            Client(client.server, token=created.token, ca_file=client.ca_file).revoke_token("current")
        else:
            client.revoke_token(created.id)


def _made(
    client: Client, scope: api_types.TokenScope, lifetime: int, label: str, replaces: str | None, held: Sequence[int]
) -> api_types.TokenCreated:
    """Ask the server on a thread, so that the token is known even if the command is interrupted meanwhile."""
    made: list[api_types.TokenCreated] = []
    failed: list[Exception] = []
    answered = threading.Event()  # in Python 3.11, Thread.join can't be called again after an interrupt

    def ask() -> None:
        try:
            made.append(client.create_token(scope, lifetime, label, replaces))
        except Exception as error:  # noqa: BLE001 - raised below, on the thread that waits for it
            failed.append(error)
        finally:
            answered.set()

    try:
        threading.Thread(target=ask, daemon=True).start()
        while not held and not answered.wait(_INTERVAL):
            pass
        if held:
            answered.wait(GRACE)
    except BaseException:
        answered.wait(GRACE)
        if made:
            end(client, made[0])
        raise
    if failed:
        raise failed[0]
    if not made:
        raise KeyboardInterrupt  # the held signal acts after the block
    return made[0]
