"""What the query of a manifest costs, through SQLAlchemy's execution and by ``db.statement``.

Run it: ``.venv/bin/python benchmarks/manifest_query.py``. It makes a database of its own in a temporary folder.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from polly_dockers import db
from polly_dockers.auth import members
from polly_dockers.db.sqlite import FILE, open_engine
from polly_dockers.model import Actor, RepositoryName, Role
from polly_dockers.server.data_folder import prepare, transaction

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

ROUNDS = 7
CALLS = 5000


def microseconds(call: Callable[[], object]) -> float:
    """The median time of a call over the rounds."""
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(CALLS):
            call()
        times.append((time.perf_counter() - started) / CALLS * 1e6)
    return statistics.median(times)


def _fill(connection: Connection) -> str:
    """Make what the joins find: an organisation, its admin and a repository; the id of the signing key."""
    organisation = members.create_organisation(connection, "acme")
    user = members.add(connection, organisation, "acme", "a@acme.example", Role.admin, "")
    db.repositories.add(
        connection, organisation_id=organisation, name="hello", description="", access="private", user_id=user
    )
    return db.keys.every(connection)[0].kid


def main() -> None:
    """Print both figures and their ratio."""
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        kid = transaction(Path(folder), _fill)
        statement = db.pull.BY_TAG
        name = RepositoryName.parse("acme/hello")
        actor = Actor(user_id=1, password_version=1, kid=kid)
        bound = db.permissions.parameters(actor, name, reference="v1", largest=1 << 16)
        engine = open_engine(Path(folder) / FILE)
        with engine.connect() as connection:
            through = microseconds(lambda: connection.execute(statement._query, bound).first())  # noqa: SLF001
            direct = microseconds(lambda: statement.first(connection, bound))
        engine.dispose()
    print(f"SQLAlchemy's execution {through:.1f} µs, db.statement {direct:.1f} µs, ratio {through / direct:.1f}")


if __name__ == "__main__":
    main()
