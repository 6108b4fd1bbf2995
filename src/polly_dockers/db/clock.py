"""How much time has really passed, even if the server's wall clock jumps.

Times in rows come from the wall clock. If that is set ahead, everything looks older than it is, and the garbage
collector would delete what somebody still needs. So the collector compares it with the kernel's clock, which counts
from the start of the machine and cannot be set. What the wall clock gained over that is a jump. It is recorded in
``clock_jumps``: the wall clock went from ``before`` to ``after``, and no time passed in between. A jump back needs no
record, because it only makes things look younger.

No clock counts while the machine is off, so at most UNSEEN of that time counts. So a clock without a battery, which
starts in 1970 and is set later, deletes nothing early either. All errors are on the safe side: things are kept longer.
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
"""By how much the clocks may drift apart between two observations: more than slewing, less than matters."""
UNSEEN: Final = HOUR
"""How much of the time while the machine was off counts at most."""
REMEMBERED: Final = 1000
"""How many jumps are kept at most: the newest."""


def _jump(row: Any, wall: int) -> tuple[int, int] | None:  # noqa: ANN401 - a row of named columns
    """The jump ahead since the last observation, as (before, after); None if there was none."""
    if row is None:
        return None
    same = row.boot == boot.THIS
    passed = boot.running() - row.running if same else min(max(0, wall - row.wall), UNSEEN)
    before = row.wall + passed
    return (before, wall) if wall - before > TOLERANCE else None


def jumped(connection: Connection) -> bool:
    """Whether the wall clock was set ahead since the last observation."""
    return _jump(connection.execute(select(clock)).first(), now()) is not None


def observe(connection: Connection) -> int:
    """Compare the clocks and record a jump ahead; returns its microseconds, or 0 if there was none.

    Leases and tombstones are moved by as much, so that they end at the right time.
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
    leased, not_before = repository_blobs.c.leased_until, tombstones.c.not_before
    connection.execute(update(repository_blobs).where(leased > HELD).values(leased_until=leased + (after - before)))
    connection.execute(update(tombstones).values(not_before=not_before + (after - before)))
    return after - before


def ago(connection: Connection, seconds: int) -> int:
    """The wall clock's time of ``seconds`` ago, without jumps; in microseconds since 1970."""
    wall = now()
    return walk_back(wall, jumps(connection, wall), seconds * SECOND)


def jumps(connection: Connection, wall: int) -> list[tuple[int, int]]:
    """Jumps ahead as (before, after), the newest first; also one up to ``wall`` that is not recorded yet."""
    rows = connection.execute(select(clock_jumps).order_by(clock_jumps.c.id.desc()))
    found = [(row.before, row.after) for row in rows]
    unseen = _jump(connection.execute(select(clock)).first(), wall)
    return [unseen, *found] if unseen else found


def walk_back(wall: int, jumps: Sequence[tuple[int, int]], left: int) -> int:
    """The time ``left`` microseconds before ``wall``, if ``jumps`` (newest first) took no time."""
    for before, after in jumps:
        span = max(0, wall - after)
        if span >= left:
            break
        left -= span
        wall = min(wall, before)
    return wall - left
