"""The commands of polly-server for stored data: backup, restore, check, rebuild, usage, gc."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from polly_dockers import db
from polly_dockers.auth import members
from polly_dockers.cli import tables
from polly_dockers.cli.help import HelpedCommand
from polly_dockers.cli.options import Output
from polly_dockers.cli.tables import Column, Columns
from polly_dockers.db.journal.records import Sealed
from polly_dockers.errors import BadRequest, Unavailable
from polly_dockers.formatting import counted, is_, size, to_paste, was
from polly_dockers.maintenance import backup, backup_folder, histories
from polly_dockers.server import data_folder
from polly_dockers.server.cli import folder
from polly_dockers.server.cli.folder import ConfigFile, Data
from polly_dockers.server.cli.help import group, moment, tell
from polly_dockers.server.cli.progress import Bar, Counter
from polly_dockers.system import process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

    from polly_dockers.context import Context
    from polly_dockers.db.usage import Usage
    from polly_dockers.maintenance.check import Checked
    from polly_dockers.maintenance.garbage import Report

T = TypeVar("T")

NAMED: Final = 20
"""Most lost blobs that one run names."""
_USAGE: Final[Columns[tuple[str, Usage]]] = (
    Column("repository", lambda each: each[0], own_line=True),
    Column("commits", lambda each: str(each[1].commits), right=True),
    Column("tags need", lambda each: size(each[1].active), right=True),
    Column("older commits", lambda each: size(each[1].inactive), right=True),
    Column("trash", lambda each: size(each[1].trash), right=True),
    Column("no image", lambda each: size(each[1].unnamed), right=True),
)
app: Final = group("What is stored.")


@app.command("backup", cls=HelpedCommand, epilog="polly-server backup --data data --to /mnt/backup/polly")
def run_backup(
    to: Annotated[
        Path,
        typer.Option(
            "--to",
            readable=False,
            metavar="DIR",
            help="Folder of the backup. A later backup to it copies only what is new.",
        ),
    ],
    data: Data = Path("data"),
    *,
    output: Output = "table",
) -> None:
    """Copy the registry to a folder while the server runs. The copy is read again and checked."""
    data_folder.require(data, reads=True)
    with _bar("copying") as start:
        done = backup.backup(data, to, start)
    if done.database_was_damaged:
        tell("Warning: The database of the earlier backup was damaged, and was replaced.", aside=True)
    if not done.journal_is_whole:
        tell(
            "Warning: The journal lacks changes of the database. Restart the server, which then writes it again, and "
            "make another backup.",
            aside=True,
        )
    if done.database_is_behind:
        tell(f"Warning: {histories.DATABASE_LACKS} Make another backup after that.", aside=True)
    if done.damaged:
        tell(
            f"Warning: {counted(len(done.damaged), 'manifest')} {is_(len(done.damaged))} damaged, also in this backup, "
            f"because no undamaged copy was found: {_named(done.damaged)}. Push the images again under a new tag.\n"
            "To repair them from another backup:"
            + to_paste(f"polly-server check --data {quote(str(data))} --repair --from …"),
            aside=True,
        )
    if output == "json":
        tables.document({"copied": done.blobs, "bytes": done.size, "kept": done.kept, "replaced": done.replaced})
        return
    tell(
        f"Copied {counted(done.blobs, 'blob')} ({size(done.size)}) to {to}; {counted(done.kept, 'blob')} "
        f"{was(done.kept)} there already. The backup holds the registry as it was when this command began."
    )
    if done.replaced:
        tell(
            f"{counted(done.replaced, 'blob')} of the earlier backup had a wrong size and {was(done.replaced)} copied "
            "again."
        )


@app.command("restore", cls=HelpedCommand, epilog="polly-server restore --from /mnt/backup/polly --data data")
def run_restore(
    from_: Annotated[
        Path, typer.Option("--from", readable=False, metavar="DIR", help="Folder that polly-server backup --to wrote.")
    ],
    data: Data = Path("data"),
) -> None:
    """Create a data folder from a backup. The registry is as it was at the time of the backup.

    Blobs that are damaged in the backup are named, with their images, and the exit code is 1. All else is restored.
    """
    with _bar("restoring") as start:
        done = backup.restore(from_, data, start)
    data_folder.prepare(data)
    data_folder.transaction(data, db.last_pulls.record_all)
    tell(
        f"Restored {counted(done.blobs, 'blob')} ({size(done.size)}) to {data}. Start the server: "
        f"polly-server run --data {quote(str(data))}"
    )
    if not done.journal_is_whole:
        tell("The backup's journal lacks changes or is gone. It was written again from the database.", aside=True)
    option = f"--data {quote(str(data))}"
    if done.lost:
        _print_lost(data, done.lost)
    if done.damaged:
        tell(
            f"{counted(len(done.damaged), 'manifest')} {was(len(done.damaged))} damaged in the backup: "
            f"{_named(done.damaged)}. If no command repairs them, push the images again under a new tag.\n"
            f"To repair them from the journal:{to_paste(f'polly-server check {option} --repair')}\n"
            f"To repair them from another backup:{to_paste(f'polly-server check {option} --repair --from …')}",
            aside=True,
        )
    tell(
        "Passwords, roles, access tokens and signing keys are those of the backup. What was changed or revoked since "
        "then is valid again.\n"
        f"To end access tokens:{to_paste(f'polly-server user revoke-tokens --all {option}')}\n"
        f"To end what older signing keys signed:{to_paste(f'polly-server key rotate --revoke {option}')}"
    )
    if done.lost or done.damaged:
        raise SystemExit(1)


def _named(what: list[str]) -> str:
    """The first NAMED of a list."""
    return ", ".join(what[:NAMED]) + (" and more" if len(what) > NAMED else "")


def _print_lost(data: Path, lost: list[str]) -> None:
    """Print on stderr which blobs a restore could not restore, with their images, and what to do."""

    def find(connection: Connection) -> list[tuple[str, list[str]]]:
        rows = [row for key in lost[:NAMED] if (row := db.checks.blob_of(connection, key)) is not None]
        return [(row.digest, db.checks.images_of(connection, row.id)) for row in rows]

    for digest, images in data_folder.transaction(data, find):
        tell(f"The blob {digest} is missing or damaged in the backup, and was not restored.", aside=True)
        for image in images:
            tell(f"  {image}", aside=True)
    tell(
        f"{counted(len(lost), 'blob')} {was(len(lost))} not restored. Push the images again, or take "
        f"{'it' if len(lost) == 1 else 'them'} from another backup:"
        + to_paste(f"polly-server check --data {quote(str(data))} --repair --from …"),
        aside=True,
    )


@contextlib.contextmanager
def _bar(what: str) -> Iterator[Callable[[int], Callable[[int], None]]]:
    """Yields a function that starts a bar for so many bytes, and returns the function that advances it."""
    bars: list[Bar] = []

    def start(total: int) -> Callable[[int], None]:
        bars.append(Bar(what, total))
        return bars[0].add

    yield start
    for bar in bars:
        bar.end()


@app.command("check", cls=HelpedCommand, epilog="polly-server check --data data --repair --from /mnt/backup/polly")
def run_check(
    data: Data = Path("data"),
    *,
    repair: Annotated[bool, typer.Option("--repair", help="Repair what can be repaired; nothing is deleted.")] = False,
    from_: Annotated[
        Path | None,
        typer.Option("--from", readable=False, metavar="DIR", help="Folder of a backup to repair from."),
    ] = None,
    sample: Annotated[
        float,
        typer.Option(
            min=0,
            max=100,
            metavar="PERCENT",
            help="Percentage of the blobs that are read; 0: only compare sizes.",
        ),
    ] = 100,
    rate: Annotated[float, typer.Option(min=0, metavar="MB/S", help="Read at most this many MB/s; 0: no limit.")] = 0,
    audit_head: Annotated[
        str | None, typer.Option(metavar="POSITION:HASH", help="Head of the audit log that an earlier check printed.")
    ] = None,
    config_file: ConfigFile = None,
    output: Output = "table",
) -> None:
    """Find damage to the data while the server runs. The database is compared with the files, and bytes with digests.

    The exit code is 1 if something is wrong, and 0 if --repair has repaired all of it.

    --repair moves a damaged blob to the folder damaged. It then takes the blob from another copy or from the backup of
    --from; without either, the next push stores it again. A damaged manifest is taken from the journal or the backup.

    The chain of the audit log is checked too. Somebody who can write to the data folder could replace the whole log. To
    detect that, keep the head that a check prints in another place, and give it as --audit-head.
    """
    from polly_dockers.maintenance.check import Check  # noqa: PLC0415 - only what a command needs is imported

    noted = _seal(audit_head)
    if from_ is not None:
        if not repair:
            msg = "--from names the backup that --repair uses. Give both, or neither."
            raise BadRequest(msg)
        backup_folder.require_backup(from_)

    async def run(context: Context) -> Checked:
        check = Check(context, repair=repair, sample=sample, rate=rate * 1_000_000, backup=from_, audit_head=noted)
        bar = Bar("checking", await check.size())
        check.progress = bar.add
        seen = await check.run()
        bar.end()
        return seen

    seen = folder.run(data, run, config_file, reads=not repair)
    if output == "json":
        head = None if seen.audit is None else str(seen.audit)
        fields = {key: value for key, value in asdict(seen).items() if key not in {"audit", "unsealed"}}
        tables.document({**fields, "audit_head": head})
    else:
        _print_checked(seen)
    if not all(found.whole for found in seen.damages):
        raise SystemExit(1)


def _print_checked(seen: Checked) -> None:
    """Print the damage that was found on stderr, and the result on stdout."""
    for found in seen.damages:
        what, _, ways = found.what.partition("\n")
        tell(f"{what}{f' It is {found.repaired}.' if found.repaired else ''}", aside=True)
        for image in found.images:
            tell(f"  {image}", aside=True)
        if ways:
            tell(ways, aside=True)
    if seen.incomplete:
        tell(
            "These images lack something that they name. That is right for sparse indexes; push others again: "
            f"{_named(seen.incomplete)}.",
            aside=True,
        )
    tell(
        f"Checked {counted(seen.blobs, 'blob')}, {seen.hashed} of them read ({size(seen.size)}), and "
        f"{counted(seen.manifests, 'manifest')}. Files that no image uses, which are deleted later: {seen.orphans}. "
        f"{_verdict(seen)}"
    )
    if seen.audit is not None:
        newer = f"The newest {counted(seen.unsealed, 'entry')} {is_(seen.unsealed)} not sealed yet. "
        tell(
            f"The audit log is whole. {newer if seen.unsealed else ''}Keep its head in another place, and give it to a "
            f"later check: {seen.audit}"
        )


def _verdict(seen: Checked) -> str:
    """The result of a check in words. It does not say that data is right which was not read."""
    count, repaired = len(seen.damages), sum(found.whole for found in seen.damages)
    if repaired and repaired == count:
        return (
            f"Found {counted(count, 'problem')}, and repaired {'it' if count == 1 else 'them'}; nothing is wrong now."
        )
    if count:
        more = f", {repaired} of which {is_(repaired)} repaired" if repaired else ""
        return f"Found {counted(count, 'problem')}{more}."
    unread = seen.blobs - seen.hashed
    if unread == 0:
        return "Nothing is wrong."
    which = "No blob was read" if seen.hashed == 0 else f"{counted(unread, 'blob')} {was(unread)} not read"
    return f"{which}: the sizes of all files are right, but damage inside a file that was not read is not found."


def _seal(text: str | None) -> Sealed | None:
    if text is None:
        return None
    position, _, digest = text.partition(":")
    if not position.isdecimal() or not re.fullmatch("[0-9a-f]{64}", digest):
        msg = "--audit-head must be POSITION:HASH, as polly-server check prints it."
        raise BadRequest(msg)
    return Sealed(int(position), bytes.fromhex(digest))


@app.command("rebuild", cls=HelpedCommand, epilog="polly-server rebuild --data data")
def run_rebuild(data: Data = Path("data")) -> None:
    """Rebuild a lost database from the journal and the blobs.

    This restores every repository, tag, commit and manifest. A database that was restored from a backup is brought up
    to date from the journal. Passwords, tokens and roles are not in the journal: give them again with polly-server user
    reset-password and user add.
    """
    from polly_dockers.maintenance import rebuild  # noqa: PLC0415 - only what a command needs is imported

    data_folder.refuse_backup(data)
    done = rebuild.rebuild(data)
    data_folder.prepare(data)
    tell(
        f"Read {counted(done.batches, 'entry')} of the journal. {data} has "
        f"{counted(done.repositories, 'repository')} and {counted(done.commits, 'commit')}. Restored "
        f"{counted(done.manifests, 'manifest')} and {counted(done.blobs, 'blob')} in the database."
    )
    if done.without_password:
        tell(
            f"Accounts without a password: {done.without_password}. Give a new password and role to each; at least one "
            "of each organisation is an admin:"
            + to_paste(f"polly-server user add --data {quote(str(data))} --org … --email … --role …")
        )
    for each in done.unproven[:NAMED]:
        tell(f"left out: {each.digest}, which {each.manifest} names", aside=True)
    if done.unproven:
        tell(
            f"{len(done.unproven)} of the things that images name are left out: an older version of polly-server did "
            "not record whether the repository had them. Push these images again. polly-server check names them.",
            aside=True,
        )
    for each in done.lost[:NAMED]:
        tell(f"lost: {each.digest}, which {each.manifest} names", aside=True)
    if done.lost:
        tell(
            f"{counted(len(done.lost), 'blob')} {is_(len(done.lost))} lost. Push the images again to repair them.",
            aside=True,
        )
        raise SystemExit(1)


@app.command("usage", cls=HelpedCommand, epilog="polly-server usage --data data --org acme")
def run_usage(
    data: Data = Path("data"),
    *,
    org: Annotated[str | None, typer.Option("--org", metavar="NAME", help="Only this organisation.")] = None,
    output: Output = "table",
) -> None:
    """Show how much space each repository uses.

    It counts separately what its tags need, what only older commits need, what is in the trash, and blobs of no image,
    such as those of a push that did not end. A blob that several repositories share is counted in each of them, but
    stored once.
    """

    async def measure(context: Context) -> tuple[list[db.usage.Usage], tuple[int, int]]:
        found: list[db.usage.Usage] = []
        while rows := await context.database.read(db.usage.page, found[-1].id if found else 0):
            found += rows
        if org is not None and all(each.organisation != org for each in found):
            await context.database.read(members.require_organisation, org)  # raises for an unknown organisation
        return found, await context.database.read(db.usage.stored)

    found, (count, total) = folder.run(data, measure, reads=True)
    chosen = [each for each in found if org is None or each.organisation == org]
    chosen.sort(key=lambda each: (*_holder(each), -(each.active + each.inactive + each.trash + each.unnamed)))
    free = shutil.disk_usage(data).free
    if output == "json":
        items = [
            {
                **{key: value for key, value in asdict(each).items() if key != "id"},
                "organisation_deleted_at": _deleted_at(each),
            }
            for each in chosen
        ]
        process.write_data(json.dumps({"repositories": items, "stored": total, "free": free}, indent=2) + "\n")
        return
    lines = [(_usage_name(each), each) for each in chosen]
    for _, of_one in itertools.groupby(chosen, _holder):
        mine = list(of_one)
        counts = ("commits", "active", "inactive", "trash", "unnamed")
        sums = {name: sum(getattr(each, name) for each in mine) for name in counts}
        lines.append((f"all of {mine[0].organisation}{_gone(mine[0])}", replace(mine[0], **sums)))
    if lines:
        tables.show(_USAGE, lines)
    else:
        tell(f"There is no docker repository{f' in {org}' if org is not None else ''} yet.", aside=True)
    tell(f"{counted(count, 'blob')} of {size(total)} in all; {size(free)} free on the disk.")


def _holder(each: Usage) -> tuple[str, int]:
    """A key that separates organisations of one name: the existing one sorts before those in the trash."""
    return each.organisation, -(each.organisation_deleted_at or sys.maxsize)


def _deleted_at(each: Usage) -> str | None:
    return moment(each.organisation_deleted_at) if each.organisation_deleted_at is not None else None


def _gone(each: Usage) -> str:
    at = _deleted_at(each)
    return f" (organisation deleted {tables.date(at)})" if at is not None else ""


def _usage_name(each: Usage) -> str:
    return f"{each.organisation}/{each.name}{_gone(each) or (' (in the trash)' if each.deleted else '')}"


@app.command("gc", cls=HelpedCommand, epilog="polly-server gc --data data --dry-run")
def run_gc(
    data: Data = Path("data"),
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be deleted.")] = False,
    config_file: ConfigFile = None,
    output: Output = "table",
) -> None:
    """Delete what nobody needs, while the server runs. The server also does so automatically.

    It deletes what was in the trash for trash_days, blobs that no manifest names, and abandoned uploads. Before that,
    it moves to the trash what the policies of organisations no longer keep.
    """
    from polly_dockers.maintenance.garbage import Collector  # noqa: PLC0415 - only what a command needs is imported

    counter = Counter()

    def show(report: Report) -> None:
        counter.show(f"{counted(report.blobs, 'blob')} marked, {report.files} deleted, {size(report.freed)} freed")

    async def preview(context: Context) -> Report:
        return await Collector(context).preview()

    async def collect(context: Context) -> Report:
        report = await Collector(context, progress=show).run()
        if report is None:
            msg = "Another collection is running on this folder. Try again when it has ended."
            raise Unavailable(msg)
        return report

    report = folder.run(data, preview if dry_run else collect, config_file, reads=dry_run)
    counter.end()
    if output == "json":
        tables.document({"dry_run": dry_run, **asdict(report)})
    else:
        tell(_would(report) if dry_run else _did(report))


def _would(report: Report) -> str:
    return (
        f"Would move {counted(report.expired, 'manifest')} to the trash by policy.\n"
        f"Would purge {counted(report.purged, 'item')} of the trash, and collect {counted(report.blobs, 'blob')} of "
        f"{size(report.size)} that nothing needs.\n"
        f"Waiting to be deleted: {counted(report.waiting, 'blob')}. Files that no image uses: {report.orphans}. "
        f"Abandoned uploads: {report.uploads} of {size(report.freed)}.\nNothing was changed."
    )


def _did(report: Report) -> str:
    lines = [
        f"Moved {counted(report.expired, 'manifest')} to the trash by policy.",
        f"Purged {counted(report.purged, 'item')} of the trash. Their blobs are deleted when their leases have ended.",
        f"Collected {counted(report.blobs, 'blob')} of {size(report.size)} that nothing needed.",
        f"Collected {counted(report.orphans, 'file')} that no image uses.",
        f"Deleted {counted(report.files, 'blob')} and {counted(report.uploads, 'abandoned upload')}.",
        f"Freed {size(report.freed)}. Waiting for a later run: {counted(report.waiting, 'blob')}.",
    ]
    if report.journal > 0:
        lines.append(f"The journal is {size(report.journal)} smaller.")
    if report.dropped:
        lines.append(f"Dropped {counted(report.dropped, 'entry')} of the audit log.")
    return "\n".join(lines)
