"""How much time has really passed, where the wall clock of the server may jump.

Times in rows are of the wall clock. A jump of it ahead would make everything look older than it is, and the collector
would delete what somebody may still need. So the collector compares it with a clock that cannot be set: that of the
kernel, which counts from the start of the machine. What the wall clock gained beside it is a jump, and is written down
(``clock_jumps``): the wall clock went from ``before`` to ``after``, and no time passed in between. A jump back needs no
record, for it only makes things look younger.

Nobody counts while the machine is off, so UNSEEN of such a time counts at most. A clock without a battery, which starts
in 1970 and is set later, therefore deletes nothing early either. All of this errs to one side: things are kept longer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import delete, insert, select, update

from polly_dockers.db.schema import HELD, clock, clock_jumps, repository_blobs, tombstones
from polly_dockers.db.sqlite import now
from polly_dockers.system import boot
from polly_dockers.system.durations import HOUR, MINUTE, SECOND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

TOLERANCE: Final = MINUTE
"""What two clocks may differ by between two looks without a jump: more than slewing does, less than matters."""
UNSEEN: Final = HOUR
"""How much of the time between two starts of the machine counts, at most."""
REMEMBERED: Final = 1000
"""Jumps that are kept, at most: the newest."""


def _jump(row: Any, wall: int) -> tuple[int, int] | None:  # noqa: ANN401 - a row of named columns
    """The jump ahead since the last look, as (before, after)."""
    if row is None:
        return None
    same = row.boot == boot.THIS
    passed = boot.running() - row.running if same else min(max(0, wall - row.wall), UNSEEN)
    before = row.wall + passed
    return (before, wall) if wall - before > TOLERANCE else None


def jumped(connection: Connection) -> bool:
    """Whether the wall clock was set ahead since the last look."""
    return _jump(connection.execute(select(clock)).first(), now()) is not None


def observe(connection: Connection) -> int:
    """Look at the clocks, and write down a jump ahead; the microseconds of it, 0 where there was none.

    Leases and tombstones that wait are moved by as much, so that they end when they were to end.
    """
    row, wall = connection.execute(select(clock)).first(), now()
    jump = _jump(row, wall)
    if jump is None and row is not None and row.boot == boot.THIS and abs(wall - row.wall) < TOLERANCE:
        return 0
    connection.execute(delete(clock))
    connection.execute(insert(clock), {"boot": boot.THIS, "running": boot.running(), "wall": wall})
    if jump is None:
        return 0
    before, after = jump
    number = connection.execute(insert(clock_jumps).values(before=before, after=after).returning(clock_jumps.c.id))
    connection.execute(delete(clock_jumps).where(clock_jumps.c.id <= number.scalar_one() - REMEMBERED))
    leased, buried = repository_blobs.c.leased_until, tombstones.c.not_before
    connection.execute(update(repository_blobs).where(leased > HELD).values(leased_until=leased + (after - before)))
    connection.execute(update(tombstones).values(not_before=buried + (after - before)))
    return after - before


def ago(connection: Connection, seconds: int) -> int:
    """The time of the wall clock that ``seconds`` have really passed since, in microseconds since 1970."""
    wall = now()
    return walk_back(wall, jumps(connection, wall), seconds * SECOND)


def jumps(connection: Connection, wall: int) -> list[tuple[int, int]]:
    """Jumps ahead as (before, after), the newest first; also one up to ``wall`` that nobody has written down yet."""
    rows = connection.execute(select(clock_jumps).order_by(clock_jumps.c.id.desc()))
    found = [(row.before, row.after) for row in rows]
    unseen = _jump(connection.execute(select(clock)).first(), wall)
    return [unseen, *found] if unseen else found


def walk_back(wall: int, jumps: Sequence[tuple[int, int]], left: int) -> int:
    """The time ``left`` microseconds before ``wall``, where ``jumps`` (before, after), newest first, took no time."""
    for before, after in jumps:
        span = max(0, wall - after)
        if span >= left:
            break
        left -= span
        wall = min(wall, before)
    return wall - left
