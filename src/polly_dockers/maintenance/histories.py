"""Whether the database and the journal of a data folder belong together, and which of the two lacks something."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Final

from polly_dockers import db
from polly_dockers.db.journal import frames, older, records, state
from polly_dockers.db.sqlite import FILE, SERVER_LOCK, connect, exclusive, is_backup, open_unchanged
from polly_dockers.errors import Unavailable
from polly_dockers.formatting import counted, to_paste
from polly_dockers.maintenance import backup_folder, damaged, restoring
from polly_dockers.system import folders, ownership

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

JOURNAL_LACKS: Final = "The journal lacks changes of the database. The next start of the server writes it again."
DATABASE_LACKS: Final = "The database lacks changes of its journal. The next start of the server applies them."


def difference(folder: Path) -> str:
    """What ``catch_up`` would mend: JOURNAL_LACKS, DATABASE_LACKS, or empty if the two agree. Nothing is written.

    The folder may be a backup. Raises Unavailable if they have different histories.
    """
    with connect(folder / FILE) if is_backup(folder) else exclusive(folder) as connection:
        return _difference(connection, folder)


def refuse_mixed(backup: Path) -> None:
    """Raise Unavailable if the database and the journal of a backup, which nobody writes to, have different histories.

    Nothing is written. A backup whose database has the tables of another version is not compared.
    """
    engine = open_unchanged(backup / FILE)
    try:
        with engine.connect() as connection:
            if db.version.is_current(connection) and not frames.is_whole(backup, state.last_batch(connection)):
                _difference(connection, backup)
    finally:
        engine.dispose()


def _difference(connection: Connection, folder: Path) -> str:
    if has_all(connection, folder):
        return JOURNAL_LACKS
    last = state.last_batch(connection)
    if frames.last(folder) == last:
        return ""
    if not is_older(connection, folder, last):
        next(chosen(folder, connection, last, last), None)  # raises for two histories
    return DATABASE_LACKS


def has_all(connection: Connection, folder: Path) -> bool:
    """Whether the journal lacks rows of the database, and has nothing that the database lacks.

    This is so if the journal was lost as a whole or at one end, and in a data folder that is older than the journal.
    It is also so if an earlier version was interrupted while it wrote the journal again in place. Raises Unavailable
    if the journal ends earlier than the database, and has something that the database never had.
    """
    last, newest = state.last_batch(connection), frames.last(folder)
    if last == 0 and not db.accounts.has_organisations(connection):
        return False
    if newest <= last:
        if 0 < newest < last and not older.is_descendant(connection, frames.read_chain(folder)):
            raise _two_histories(folder, older.compare(connection, frames.read_chain(folder)))
        first = next(frames.read(folder), None)
        return newest < last or first is None or first.previous != 0
    if (last and frames.has(folder, last)) or is_older(connection, folder, last):
        return False
    return older.compare(connection, frames.read_chain(folder, last)).is_contained


def continues(folder: Path, database: Path) -> bool:
    """Whether the journal goes on from the database of a backup: a rebuild can bring that up to date."""
    with connect(database) as connection:
        last = state.last_batch(connection)
        return frames.has(folder, last) or is_older(connection, folder, last)


def is_older(connection: Connection, folder: Path, last: int) -> bool:
    """Whether the database is an earlier state of what the journal's snapshot holds."""
    newest = next(iter(frames.files(folder)), None)
    if newest is None or not last or not frames.is_snapshot(newest) or frames.number(newest) <= last:
        return False
    return older.is_ancestor(connection, frames.read_file(newest))


def chosen(folder: Path, connection: Connection, after: int, last: int) -> Iterator[records.Batch]:
    """The batches of the journal after ``after``. They follow ``last``, which is 0 for tables that were cleared.

    Raises Unavailable if they do not follow it.
    """
    first = True
    for batch in frames.read_chain(folder, after):
        if first and batch.previous != last:
            if last == 0 and not db.accounts.has_organisations(connection):
                raise lacks(folder)
            raise _two_histories(folder, older.compare(connection, frames.read_chain(folder, after)))
        first = False
        yield batch


def lacks(folder: Path) -> Unavailable:
    """What to do if the database is gone, and the journal has a gap."""
    after = next((batch for batch in frames.chain(folder, 0) if batch >= frames.FIRST), 0)
    place = quote(str(folder))
    lacking = f"it lacks changes from before {restoring.when(after)}" if after else "it lacks all changes"
    return Unavailable(
        f"The journal of {folder} is damaged: {lacking}. The database is "
        "gone too, so it can't be rebuilt from this journal alone. Nothing was changed.\n"
        "If a backup is from that time or later, take its database, and the rest from the journal:"
        + to_paste(*damaged.brought_back(folder, f"…/{FILE}"))
        + "\nOtherwise go back to the newest backup, without what changed since:"
        + to_paste(*folders.moved_away(folder), f"polly-server restore --from … --data {place}")
    )


def _two_histories(folder: Path, found: older.Compared) -> Unavailable:
    facts = (
        f"has another history than its journal. Only the database has {_counts(found.ours)}; only the journal has "
        f"{_counts(found.theirs)}, some of which may have been deleted. Nothing was changed."
    )
    place, journal, file = quote(str(folder)), quote(str(folder / frames.FOLDER)), quote(str(folder / FILE))
    # without its locks, because a database that was copied into a backup by hand is not one of a backup
    if (folder / backup_folder.LOCK).exists() and not (folder / SERVER_LOCK).exists():
        msg = (
            f"The database of the backup {folder} {facts}\n"
            "If the registry still exists, write another backup to a new folder:"
            + to_paste("polly-server backup --data … --to …")
            + "\nTo restore the database:"
            + to_paste(
                f"mv {journal} {quote(str(folders.unused(Path(f'{folder}.journal'))))}",
                f"polly-server restore --from {place} --data …",
            )
            + "\nTo restore the journal, which has no passwords, roles or tokens:"
            + to_paste(
                f"install -d {ownership.as_owner_of(folder)} -m 700 …",
                f"cp -a {quote(str(folder / 'blobs'))} {journal} …",
                "polly-server rebuild --data …",
            )
        )
        return Unavailable(msg)
    aside, old = (quote(str(folders.unused(folder / name))) for name in ("other-database", f"{frames.FOLDER}.other"))
    msg = (
        f"The database of {folder} {facts} Copy the whole folder first. Then keep the one that holds more.\n"
        "To keep the database, from which the server writes the journal again:"
        + to_paste(f"mv {journal} {old}", f"polly-server run --data {place}")
        + "\nTo keep the journal, which has no passwords, roles or tokens:"
        + to_paste(
            f"install -d {ownership.as_owner_of(folder)} -m 700 {aside}",
            f"mv {file}* {aside}",
            f"polly-server rebuild --data {place}",
        )
    )
    return Unavailable(msg)


def _counts(counts: dict[str, int]) -> str:
    """The counts as text, such as ``2 users, 1 commit``."""
    return ", ".join(counted(count, name) for name, count in counts.items() if count) or "other changes"
