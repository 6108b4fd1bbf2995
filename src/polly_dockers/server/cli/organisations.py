"""The commands of polly-server for organisations: create, update, delete, restore and list."""

from __future__ import annotations

from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from polly_dockers import db
from polly_dockers.auth import members
from polly_dockers.cli import tables
from polly_dockers.cli.help import HelpedCommand
from polly_dockers.cli.options import Output
from polly_dockers.cli.tables import Column, Columns
from polly_dockers.db.audit import Event
from polly_dockers.errors import BadRequest
from polly_dockers.formatting import counted, size
from polly_dockers.model import parse_slug
from polly_dockers.registry import deletion
from polly_dockers.server.cli import folder
from polly_dockers.server.cli.folder import Data
from polly_dockers.server.cli.help import Yes, confirm, group, moment, named_by, tell
from polly_dockers.system.durations import DAY

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from polly_dockers.db.trash import Item

_ORGANISATION: Final[Columns[dict[str, Any]]] = (
    Column("organisation", itemgetter("slug")),
    Column("members", lambda each: str(each["members"])),
    Column("created at", lambda each: tables.date(each["created_at"])),
    Column("create on push", lambda each: "yes" if each["create_on_push"] else "no"),
)
_DELETED: Final[Columns[dict[str, Any]]] = (
    Column("item", lambda each: str(each["item"])),
    Column("organisation", itemgetter("slug")),
    Column("repositories", lambda each: str(each["repositories"])),
    Column("members", lambda each: str(each["members"])),
    Column("commits", lambda each: str(each["commits"])),
    Column("size", lambda each: size(each["size"])),
    Column("deleted at", lambda each: tables.date(each["deleted_at"])),
    Column("restorable until", lambda each: tables.date(each["restorable_until"])),
)
app: Final = group("Organisations: the first part of every image path.")
Org = Annotated[str, typer.Option("--org", metavar="NAME", help="Slug of the organisation, such as acme.")]


@app.command("create", cls=HelpedCommand, epilog="polly-server org create biolab --data data")
@named_by("org")
def run_create(
    org: Org,
    data: Data = Path("data"),
    *,
    create_on_push: Annotated[
        bool, typer.Option(help="A push to a repository that does not exist creates it.")
    ] = False,
) -> None:
    """Create an organisation. Give it an admin with polly-server user add."""
    folder.transaction(
        data, lambda connection: members.create_organisation(connection, org, create_on_push=create_on_push)
    )
    tell(
        f"Created the organisation {org}. Give it an admin: polly-server user add{folder.option()} --org {org} "
        "--email … --role admin"
    )


@app.command("update", cls=HelpedCommand, epilog="polly-server org update biolab --create-on-push")
@named_by("org")
def run_update(
    org: Org,
    *,
    create_on_push: Annotated[
        bool, typer.Option(help="Whether a push to a repository that does not exist creates it.")
    ],
    data: Data = Path("data"),
) -> None:
    """Change the settings of an organisation."""

    def update(connection: Connection) -> None:
        found = members.require_organisation(connection, org)
        if not db.accounts.set_create_on_push(connection, found, on=create_on_push):
            return
        detail = f"create-on-push {'on' if create_on_push else 'off'}"
        db.audit.append(connection, Event.organisation_update, org, organisation_id=found, by=None, detail=detail)

    folder.transaction(data, update)
    tell(f"Organisation {org}: create-on-push is {'on' if create_on_push else 'off'}.")


@app.command("delete", cls=HelpedCommand, epilog="polly-server org delete biolab --yes")
@named_by("org")
def run_delete(org: Org, data: Data = Path("data"), *, yes: Yes = False) -> None:
    """Move an organisation with all its repositories to the trash. Nobody reaches it until it is restored."""
    if not yes:
        found = folder.transaction(data, lambda connection: members.describe_contents(connection, org))
        what = f"This moves the organisation {org} to the trash, with {found}."
        confirm(what, "Delete it?", "Nothing was deleted.", "delete")
    item = folder.transaction(data, lambda connection: deletion.delete_organisation(connection, org))
    if _until(item, data) == moment(item.deleted_at):
        tell(
            f"Organisation {org} is in the trash. trash_days is 0: the next collection of garbage deletes it for good."
        )
        return
    until = tables.date(_until(item, data))
    tell(
        f"Organisation {org} is in the trash. To bring it back until {until}: "
        f"polly-server org restore{folder.option()} --org {org}"
    )


def _until(item: Item, data: Path) -> str:
    """The time until which the item can be restored."""
    return moment(item.deleted_at + folder.settings(data).trash_days * DAY)


@app.command(
    "restore",
    cls=HelpedCommand,
    epilog="polly-server org restore biolab\npolly-server org restore biolab --item 7 --as biolab-before",
)
@named_by("org")
def run_restore(
    org: Org,
    data: Data = Path("data"),
    *,
    item: Annotated[
        int | None,
        typer.Option(
            "--item",
            metavar="NUMBER",
            help="Number of the organisation, if several have the name; org list --deleted shows it.",
        ),
    ] = None,
    as_: Annotated[str | None, typer.Option("--as", metavar="NAME", help="Restore it under another name.")] = None,
) -> None:
    """Restore an organisation that was deleted, with all that it had."""
    target = parse_slug(as_) if as_ is not None else org

    def restore(connection: Connection) -> None:
        found = _choose(connection, deletion.require_deleted_organisations(connection, org, item))
        command = f"polly-server org restore{folder.option()} {org} --item {found.id} --as NEW_NAME"
        deletion.restore_organisation(connection, found, target, command)

    folder.transaction(data, restore)
    tell(f"Organisation {org} is restored{f' as {target}' if target != org else ''}.")


def _choose(connection: Connection, found: list[Item]) -> Item:
    """The only organisation found. Raises BadRequest if there are several."""
    if len(found) > 1:
        lines = "".join(
            f"\n  --item {each.id}: {_contents(connection, each)}, deleted {tables.date(moment(each.deleted_at))}"
            for each in found
        )
        msg = f"The trash has {len(found)} organisations with the name {found[0].name}. Choose one:{lines}"
        raise BadRequest(msg)
    return found[0]


def _contents(connection: Connection, item: Item) -> str:
    totals = db.accounts.organisation_totals(connection, item.organisation_id)
    return (
        f"{counted(totals.repositories, 'repository')}, {counted(totals.members, 'member')}, "
        f"{counted(item.commits, 'commit')}, {size(item.size)}"
    )


@app.command(
    "list",
    cls=HelpedCommand,
    epilog="polly-server org list --data data\npolly-server org list --deleted\npolly-server org list --output json",
)
def run_list(
    data: Data = Path("data"),
    *,
    deleted: Annotated[bool, typer.Option("--deleted", help="List the organisations in the trash instead.")] = False,
    output: Output = "table",
) -> None:
    """List the organisations. For each: members, when it was made, and whether a push creates repositories."""
    in_trash = [each for each in folder.read(data, db.trash.organisations_in) if not each.purging]
    if deleted:
        _list_deleted(data, in_trash, output)
        return
    found = folder.read(data, db.accounts.organisation_list)
    items = [
        {
            "slug": row.slug,
            "members": row.members,
            "created_at": moment(row.created_at),
            "create_on_push": bool(row.create_on_push),
        }
        for row in found
    ]
    command = f"polly-server org create{folder.option()} --org …"
    tables.display(output, items, _ORGANISATION, items, f"There is no organisation yet. Create one: {command}")
    if in_trash and output != "json":
        count = counted(len(in_trash), "deleted organisation")
        tell(f"{count} can be restored: polly-server org list{folder.option()} --deleted", aside=True)


def _list_deleted(data: Path, in_trash: list[Item], output: str) -> None:
    def totals(connection: Connection) -> list[Any]:
        return [db.accounts.organisation_totals(connection, each.organisation_id) for each in in_trash]

    items: list[dict[str, Any]] = [
        {
            "item": each.id,
            "slug": each.name,
            "repositories": held.repositories,
            "members": held.members,
            "commits": each.commits,
            "size": each.size,
            "deleted_at": moment(each.deleted_at),
            "restorable_until": _until(each, data),
        }
        for each, held in zip(in_trash, folder.read(data, totals), strict=True)
    ]
    tables.display(output, items, _DELETED, items, "No organisation is in the trash.")
