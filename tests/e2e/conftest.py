"""People with a role in an organisation, each at a machine with an engine of its own."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol

import pytest

from .engine import running_engine
from .people import Person, new_person

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.server import Server

    Account = tuple[str, str]


PASSING = "passing"
"""The role of a writer of one test only, whom that test may remove."""


class People(Protocol):
    """Makes people."""

    def __call__(self, role: str = "writer", *, signed_in: bool = True) -> Person:
        """A person with a role, or with one of the names that ``accounts`` adds."""


@pytest.fixture(scope="session")
def accounts(server: Server) -> dict[str, tuple[str, Account]]:
    """Organisation, and email and password, by role; made once, for each takes its time.

    ``outsider`` is an admin of another organisation, ``pusher`` of one with create-on-push; ``nobody`` has no account.
    """
    org, admin = server.new_org()
    other, stranger = server.new_org()
    made_on_push, pusher = server.new_org(create_on_push=True)
    return {
        "admin": (org, admin),
        "writer": (org, server.add_user(role="writer", org=org)),
        "reader": (org, server.add_user(role="reader", org=org)),
        "outsider": (other, stranger),
        "pusher": (made_on_push, pusher),
        "nobody": (org, ("nobody@acme.example", "")),
    }


def new_writer(server: Server, accounts: dict[str, tuple[str, Account]]) -> tuple[str, Account]:
    """One more writer of the organisation."""
    org, _ = accounts["writer"]
    return org, server.add_user(role="writer", org=org)


@pytest.fixture
def people(server: Server, accounts: dict[str, tuple[str, Account]], tmp_path: Path) -> Iterator[People]:
    """A function that makes people with machines of their own: what one pulls, no other has."""
    with contextlib.ExitStack() as stack:

        def make(role: str = "writer", *, signed_in: bool = True) -> Person:
            org, account = accounts[role] if role != PASSING else new_writer(server, accounts)
            home = tmp_path / f"{len(list(tmp_path.iterdir()))}-{role}"
            engine = stack.enter_context(running_engine())
            person = new_person(server, engine, home, org, account)
            if signed_in and role != "nobody":
                person.login()
            return person

        yield make


@pytest.fixture
def wanda(people: People) -> Person:
    """A writer, signed in to Polly."""
    return people("writer")
