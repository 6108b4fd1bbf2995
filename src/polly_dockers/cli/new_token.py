"""A new access token that is handed out, or ended again.

Whatever goes wrong between the server's answer and the moment when somebody has the token leaves no token behind that
nobody knows of: a file that can't be written, a full disk behind stdout, Ctrl-C, SIGTERM, a closed terminal.
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
"""Seconds that an interrupted command waits for the server's answer, so that it can end what that has made."""
_LONGEST = 200
"""Characters that the server takes as a label."""
_LOOK = 0.1
"""Seconds between two looks whether a signal was held."""


@contextlib.contextmanager
def new_token(
    client: Client, scope: api_types.TokenScope, lifetime: int, label: str, replaces: str | None = None
) -> Iterator[api_types.TokenCreated]:
    """Hand out a new access token, good for so many seconds at most; it ends where the block is left by an exception.

    It takes the place of the token that it ``replaces``, which ends at once. A signal waits for the end of the block
    then: who is interrupted would be left without either. Raises CommandError.
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
    """Undo what the server has made where the block, which tells somebody its secret, is left by an exception.

    All that the block prints has to be out at its end. Where the server can't be reached any more, the secret, which
    nobody knows, ends at its time.
    """
    try:
        yield
        sys.stdout.flush()
    except BaseException:
        with contextlib.suppress(CommandError):
            undo()
        raise


def on_this_machine(what: str) -> str:
    """Return a label for a token: what it is for, and the name of this machine, as far as a label may be long."""
    text = f"{what} on {socket.gethostname()}"[:_LONGEST]
    return "".join(each if each.isprintable() else "?" for each in text)


def end(client: Client, created: api_types.TokenCreated) -> None:
    """End a token that nobody was given; if that fails too, it ends at its time."""
    with contextlib.suppress(CommandError):
        if created.scope == "full":
            Client(client.server, token=created.token, ca_file=client.ca_file).revoke_token("current")
        else:
            client.revoke_token(created.id)


def _made(
    client: Client, scope: api_types.TokenScope, lifetime: int, label: str, replaces: str | None, held: Sequence[int]
) -> api_types.TokenCreated:
    """Ask the server on a thread: who is interrupted while it answers still learns what it has made."""
    made: list[api_types.TokenCreated] = []
    failed: list[Exception] = []
    answered = threading.Event()  # Thread.join of Python 3.11 can't be called again once it was interrupted

    def ask() -> None:
        try:
            made.append(client.create_token(scope, lifetime, label, replaces))
        except Exception as error:  # noqa: BLE001 - raised below, on the thread that waits for it
            failed.append(error)
        finally:
            answered.set()

    try:
        threading.Thread(target=ask, daemon=True).start()
        while not held and not answered.wait(_LOOK):
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
        raise KeyboardInterrupt  # a signal is held, and acts behind the block
    return made[0]
