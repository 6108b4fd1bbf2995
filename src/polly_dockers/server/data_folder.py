"""The data folder of a server: making and upgrading it, checking it, and transactions while a server runs."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, TypeVar

from polly_dockers import db
from polly_dockers.auth.passwords import Passwords
from polly_dockers.auth.registry_tokens import Signer, new_key
from polly_dockers.auth.throttles import Throttles
from polly_dockers.blobs.filesystem import FileBlobStore
from polly_dockers.context import Context
from polly_dockers.db import disk_errors
from polly_dockers.db.backups import BackupDatabase
from polly_dockers.db.journal import frames
from polly_dockers.db.sqlite import ERRORS, FILE, SERVER_LOCK, Database, is_backup, is_made
from polly_dockers.errors import StorageFull, Unavailable
from polly_dockers.formatting import to_paste
from polly_dockers.system import durable, folders, locks, ownership

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

    from polly_dockers.config import Config


T = TypeVar("T")


def prepare(folder: Path) -> None:
    """Make the data folder and its database, or upgrade them to this version.

    If root calls it, the process then acts as the owner of the folder. Raises Unavailable for a folder that can't be
    used, has a newer version, or has lost its database.
    """
    ownership.become(folder)
    from polly_dockers.db import migrate  # noqa: PLC0415
    from polly_dockers.maintenance import rebuild, restoring  # noqa: PLC0415 - Alembic takes longer to import than most

    try:
        if not is_made(folder):
            folders.refuse_others(folder, SERVER_LOCK)
        if not folder.exists():  # its parent may not be readable
            durable.make_folder(folder)
        with restoring.kept_away(folder):
            restoring.check(folder)
            if rebuild.is_lost(folder):
                raise _lost(folder)
            for made in (folder / "blobs", folder / "uploads"):
                durable.make_folder(made, parents=False)
            db.version.mark(folder)
            migrate.upgrade(folder)
            _tighten(folder)
            rebuild.catch_up(folder, thorough=True)
            restoring.end(folder)
    except ERRORS as error:
        raise _unusable(folder, error) from error
    _write(folder, _before_start)


def _lost(folder: Path) -> Unavailable:
    from polly_dockers.maintenance import damaged  # noqa: PLC0415 - only for a folder with a problem

    return Unavailable(damaged.lost(folder))


def _tighten(folder: Path) -> None:
    """Let only the owner read the folder, and warn of what that changed. Raises Unavailable if it fails."""
    if changed := ownership.tighten(folder):
        names = ", ".join(str(place) for place in changed)
        print(f"Warning: Other users could read {names}. Now only the owner can.", file=sys.stderr)


def _unusable(folder: Path, error: BaseException) -> Unavailable:
    """The error for a folder that failed with ``error``: its cause, and what to do."""
    from polly_dockers.maintenance import damaged  # noqa: PLC0415 - only for a folder with a problem

    if (found := damaged.of(folder, error)) and frames.exists(folder):
        return Unavailable(found)
    if why := folders.file_in_the_way(folder) or ownership.obstacle(folder) or disk_errors.trouble(folder, error):
        return Unavailable(why)
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        msg = f"The data folder {folder} can't be used: {reason}. Give one that you may write with --data DIR."
        return Unavailable(msg)
    reason = disk_errors.reason(error)
    msg = (
        f"{folder / FILE} is not a database of polly-server, or is damaged ({reason}). Restore a backup, or give "
        "another folder with --data DIR."
    )
    return Unavailable(msg)


def _before_start(connection: Connection) -> None:
    db.clock.observe(connection)
    if not db.keys.every(connection):
        db.keys.add(connection, *new_key())
    db.keys.remove_outlived(connection)


async def delete_outlived_keys(context: Context) -> None:
    """Delete the signing keys all of whose tokens have expired."""
    if await context.database.read(db.keys.outlived):
        await context.database.write(db.keys.remove_outlived)


def require(folder: Path, *, upgrades: bool = False, reads: bool = False) -> None:
    """Raise Unavailable if the folder has no registry, one of another version, or files that this user can't use.

    With ``upgrades`` an older version is accepted: the caller is a server that upgrades it. No other command may
    upgrade, because a server of the older version may be running, and would not know the new tables.

    A backup is accepted from a server, which makes it a data folder, and with ``reads`` from a command that does not
    change it.

    If root calls it, the process then acts as the owner of the folder.
    """
    ownership.become(folder)
    try:
        found, backup = "", False
        if is_made(folder):
            backup = is_backup(folder) and not upgrades
            found = db.version.read(folder)
            if not backup:
                _tighten(folder)
    except ERRORS as error:
        raise _unusable(folder, error) from error
    if message := folders.file_in_the_way(folder):
        raise Unavailable(message)
    if not found:
        from polly_dockers.maintenance import rebuild, restoring  # noqa: PLC0415 - only for a folder with a problem

        restoring.check(folder)
        if rebuild.is_lost(folder):
            raise _lost(folder)
        way = "name its folder with --data DIR, or with POLLY_CONFIG=FILE, the server's settings"
        made = to_paste(f"polly-server init --data {quote(str(folder))} --org … --email …")
        there = (
            f"There is no registry in {folder.absolute()}{'' if reads else ' yet'}. If there is one elsewhere, {way}."
        )
        raise Unavailable(there if reads else f"{there} To make one:{made}")
    (db.version.check if upgrades else db.version.current)(folder, found)
    if backup and not reads:
        refuse_backup(folder)
    if not backup and (why := ownership.obstacle(folder)):
        raise Unavailable(why)


def refuse_backup(folder: Path) -> None:
    """Raise Unavailable if the folder is a backup: the change would be lost with the next backup to it."""
    with explained(folder):
        backup = is_backup(folder)
    if backup:
        msg = (
            f"{folder} is a backup, and a backup is only read. To change the registry in it, restore it to a folder of "
            f"its own:{to_paste(f'polly-server restore --from {quote(str(folder))} --data …')}"
        )
        raise Unavailable(msg)


def hold_version(folder: Path) -> None:
    """Keep other versions from upgrading the tables, as long as this process or one of its workers lives."""
    with explained(folder):
        db.version.serve(folder)


def is_alone(folder: Path) -> bool:
    """Whether no other server runs on the folder. Called once by a server; its processes hold the lock until they end.

    The lock is that of the folder: servers that start at the same moment never stop each other.
    """
    with contextlib.suppress(OSError):  # a file system without locks
        fd = durable.open_folder(folder)
        alone = locks.try_acquire(fd)
        locks.acquire(fd, shared=True)
        return alone
    return True


def transaction(folder: Path, fn: Callable[[Connection], T]) -> T:
    """Call ``fn`` in one transaction on the database of the folder, and return its result. A server may be running."""
    catch_up(folder)
    return _write(folder, fn)


def catch_up(folder: Path) -> None:
    """Write what the journal has and the database lacks, or the other way round, as at the start of a server.

    It comes before each change, which would hide the difference. Raises Unavailable if the two do not belong together.
    """
    from polly_dockers.maintenance import rebuild  # noqa: PLC0415 - only for commands that change something

    with explained(folder):
        try:
            rebuild.catch_up(folder)
        except ERRORS as error:
            raise _unusable(folder, error) from error


def _write(folder: Path, fn: Callable[[Connection], T]) -> T:
    async def write() -> T:
        try:
            database = Database(folder)
        except ERRORS as error:
            raise _unusable(folder, error) from error
        try:
            return await database.write(fn)
        finally:
            database.close()

    with explained(folder):
        return asyncio.run(write())


def read_backup(folder: Path, fn: Callable[[Connection], T]) -> T:
    """Call ``fn`` on the database of a backup, and return its result. Nothing in the folder changes."""

    async def read() -> T:
        database = BackupDatabase(folder)
        try:
            return await database.read(fn)
        finally:
            database.close()

    with damage_explained(folder):
        return asyncio.run(read())


@contextlib.contextmanager
def damage_explained(folder: Path) -> Iterator[None]:
    """If the block fails because the database is damaged, raise Unavailable that says what to do."""
    try:
        yield
    except disk_errors.DamagedError as error:
        raise _unusable(folder, error) from error


@contextlib.contextmanager
def explained(folder: Path) -> Iterator[None]:
    """As ``damage_explained``, and if this user lacks a permission in the data folder, the error says which."""
    try:
        yield
    except disk_errors.DamagedError as error:
        raise _unusable(folder, error) from error
    except ownership.AccessDenied as error:
        if why := ownership.obstacle(folder) or (error.place and ownership.explain(Path(error.place), folder)):
            raise Unavailable(why) from error
        raise
    except (Unavailable, StorageFull, OSError) as error:
        if why := ownership.obstacle(folder):
            raise Unavailable(why) from error
        raise


def try_writes(folder: Path) -> None:
    """Try to write everywhere that a server writes: the database, the journal, blobs, uploads and locks.

    Raises Unavailable that says what can't be written, and why.
    """
    if why := ownership.obstacle(folder):
        raise Unavailable(why)

    async def write() -> None:
        store = FileBlobStore(folder)
        try:
            await store.check()
        finally:
            store.close()

    with explained(folder):
        asyncio.run(write())
        frames.check(folder)
    transaction(folder, db.version.touch)


async def open_context(config: Config) -> Context:
    """The context of use cases on the data folder, for this process and its running loop. The caller closes it.

    The folder may be a backup. Its database raises Unavailable for every write.
    """
    backup = is_backup(config.data)
    database = (BackupDatabase if backup else Database)(config.data)
    found = await database.read(db.keys.every)
    return Context(
        config=config,
        database=database,
        throttles=Throttles(),
        blobs=FileBlobStore(config.data, make=not backup),
        signer=Signer(found, config.registry),
        passwords=Passwords(),
    )
