"""Members of organisations, and the organisations themselves as the server's operator manages them.

``by`` in these functions is the user who makes the change; None stands for the server's operator.
"""

from __future__ import annotations

import enum
from datetime import UTC, datetime
from shlex import quote
from typing import TYPE_CHECKING

from polly_dockers import db
from polly_dockers.auth import permissions
from polly_dockers.auth.passwords import UNSET
from polly_dockers.db.accounts import Member, User
from polly_dockers.db.audit import Event
from polly_dockers.errors import (
    AccountExists,
    LastAdmin,
    MemberExists,
    MemberUnknown,
    OrganisationExists,
    OrganisationUnknown,
)
from polly_dockers.formatting import counted
from polly_dockers.model import Actor, Role, parse_slug
from polly_dockers.system.durations import SECOND

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from polly_dockers.auth.sign_in import SignedIn
    from polly_dockers.context import Context


async def memberships(context: Context, caller: SignedIn) -> list[tuple[str, Role, int]]:
    """The caller's organisations in the order of their slugs: slug, role, and when the caller joined."""
    return await context.database.read(db.accounts.memberships, caller.actor.user_id or 0)


async def page(
    context: Context, actor: Actor, organisation: str, *, after: str, newest_first: bool, limit: int
) -> tuple[list[Member], int]:
    """Up to ``limit`` members in the order of their emails, and how many there are. For members."""

    def query(connection: Connection) -> tuple[list[Member], int]:
        organisation_id, _ = permissions.require_role(connection, actor, organisation, Role.reader)
        return db.accounts.member_page(connection, organisation_id, after=after, newest_first=newest_first, limit=limit)

    return await context.database.read(query)


def already_member(email: str, organisation: str, *, operator: bool = False) -> MemberExists:
    """The error for adding or inviting somebody who is a member already."""
    command = "polly-server user set-role" if operator else "polly members set-role"
    msg = f"{email} is already a member of {organisation}. {command} changes the role."
    return MemberExists(msg)


async def set_role(context: Context, actor: Actor, organisation: str, email: str, role: Role) -> Member:
    """Change a member's role. For admins. Raises MemberUnknown, and LastAdmin if no admin would be left."""

    def change(connection: Connection) -> Member:
        organisation_id, _ = permissions.require_role(connection, actor, organisation, Role.admin)
        return change_role(connection, organisation_id, organisation, email, role, by=actor)

    return await context.database.write(change)


def change_role(
    connection: Connection, organisation_id: int, organisation: str, email: str, role: Role, *, by: Actor | None
) -> Member:
    """Change a member's role; returns the member with it. Raises MemberUnknown and LastAdmin."""
    member = db.accounts.member(connection, organisation_id, email.strip().lower())
    if member is None:
        raise _not_a_member(connection, organisation_id, organisation, email, by=by)
    if role is member.role:
        return member
    if role is not Role.admin:
        _check_admins(connection, organisation_id, organisation, member)
    db.accounts.set_role(connection, organisation_id, member.user_id, role)
    detail = f"{member.role.name} to {role.name}"
    db.audit.append(connection, Event.member_role, member.email, organisation_id=organisation_id, by=by, detail=detail)
    if role is not Role.admin:
        _revoke_invitations_of(connection, organisation_id, member, by=by)
    return Member(member.user_id, member.email, role, member.joined_at)


async def remove(context: Context, actor: Actor, organisation: str, email: str) -> None:
    """Remove a member, or revoke an invitation. For admins. Raises MemberUnknown and LastAdmin.

    Removing a member takes effect on their next request.
    """

    def change(connection: Connection) -> None:
        organisation_id, _ = permissions.require_role(connection, actor, organisation, Role.admin)
        delete(connection, organisation_id, organisation, email, by=actor)

    await context.database.write(change)


def delete(connection: Connection, organisation_id: int, organisation: str, email: str, *, by: Actor | None) -> None:
    """Remove a member, or revoke the invitation of somebody who has not joined. Raises MemberUnknown and LastAdmin."""
    email = email.strip().lower()
    member = db.accounts.member(connection, organisation_id, email)
    if member is None:
        if not revoke_invitation(connection, organisation_id, email, by=by):
            raise _not_a_member(connection, organisation_id, organisation, email, by=by)
        return
    _check_admins(connection, organisation_id, organisation, member)
    db.accounts.remove_member(connection, organisation_id, member.user_id)
    db.audit.append(connection, Event.member_remove, member.email, organisation_id=organisation_id, by=by)
    _revoke_invitations_of(connection, organisation_id, member, by=by)


def require_removable(
    connection: Connection, organisation_id: int, organisation: str, email: str, *, by: Actor | None
) -> bool:
    """Whether ``delete`` would remove a member; False if it would revoke an invitation. Raises what it raises."""
    email = email.strip().lower()
    member = db.accounts.member(connection, organisation_id, email)
    if member is not None:
        _check_admins(connection, organisation_id, organisation, member)
    elif db.invitations.find(connection, organisation_id, email) is None:
        raise _not_a_member(connection, organisation_id, organisation, email, by=by)
    return member is not None


def revoke_invitation(connection: Connection, organisation_id: int, email: str, *, by: Actor | None) -> bool:
    """Revoke the invitation of an email; returns False if there is none."""
    if not db.invitations.delete_for(connection, organisation_id, email):
        return False
    db.audit.append(connection, Event.member_uninvite, email, organisation_id=organisation_id, by=by)
    return True


def _revoke_invitations_of(connection: Connection, organisation_id: int, member: Member, *, by: Actor | None) -> None:
    """Revoke the invitations made by a former admin, who could otherwise join again with one of their codes."""
    for email in db.invitations.delete_by(connection, organisation_id, member.user_id):
        db.audit.append(
            connection,
            Event.member_uninvite,
            email,
            organisation_id=organisation_id,
            by=by,
            detail=f"invited by {member.email}",
        )


def _check_admins(connection: Connection, organisation_id: int, organisation: str, leaving: Member) -> None:
    """Raise LastAdmin if no admin would be left. Somebody who was invited and has not joined does not count."""
    if leaving.role is Role.admin and db.accounts.count_admins(connection, organisation_id) == 1:
        msg = f"{leaving.email} is the only admin of {organisation}. Make another member an admin first."
        raise LastAdmin(msg)


def _not_a_member(
    connection: Connection, organisation_id: int, organisation: str, email: str, *, by: Actor | None
) -> MemberUnknown:
    if db.invitations.find(connection, organisation_id, email.strip().lower()) is not None:
        next_ = "polly-server user add makes them a member" if by is None else "polly members add invites again"
        msg = f"{email[:100]} was invited to {organisation} and has not joined yet. {next_}."
        return MemberUnknown(msg)
    command = "polly-server user list" if by is None else "polly members list"
    msg = f"{email[:100]} is not a member of {organisation}. {command} shows the members."
    return MemberUnknown(msg)


# --- for the server's operator ---------------------------------------------------------------------------------------


class Existing(enum.Enum):
    """What ``add`` does with an account that has a password already, which may be known to another person."""

    refuse = enum.auto()
    keep_password = enum.auto()
    reset_password = enum.auto()


def check_account(
    connection: Connection,
    organisation_id: int,
    organisation: str,
    email: str,
    existing: Existing,
    role: Role,
    first: str = "",
) -> None:
    """Raise MemberExists or AccountExists if ``add`` would, and MemberUnknown if no account can keep a password.

    ``role`` is the one to give, and ``first`` a command to run before; the error prints them in what it suggests.
    """
    if db.accounts.member(connection, organisation_id, email) is not None:
        raise already_member(email, organisation, operator=True)
    known = db.accounts.user(connection, email)
    if known is None and existing is Existing.keep_password:
        msg = f"There is no account of {email}, so no password to keep. Leave out --keep-password to create it."
        raise MemberUnknown(msg)
    if known is not None and known.password_hash != UNSET and existing is Existing.refuse:
        add_user = f"polly-server user add {quote(email)} --org {organisation} --role {role.name}"
        raise _account_exists(connection, known, f"{first} && {add_user}" if first else add_user)


def _account_exists(connection: Connection, known: User, command: str) -> AccountExists:
    at = datetime.fromtimestamp(known.created_at / SECOND, UTC)
    roles = ", ".join(f"{role.name} in {slug}" for slug, role, _ in db.accounts.memberships(connection, known.id))
    msg = (
        f"{known.email} already has an account, created on {at:%Y-%m-%d}, which is {roles or 'in no organisation'}. "
        "Somebody else may know its password, because the server sends no mail and cannot check who an email "
        "belongs to. If you know that the account is theirs: "
        f"{command} --keep-password. "
        f"If not, set a new password, which ends all its sign-ins and access tokens: {command} --reset-password"
    )
    return AccountExists(msg)


def add(
    connection: Connection,
    organisation_id: int,
    organisation: str,
    email: str,
    role: Role,
    password_hash: str,
    existing: Existing = Existing.refuse,
    *,
    first: str = "",
) -> int:
    """Add a member; returns the id of the account. Deletes their invitation.

    If there is no account, or none with a password, it is made with the hash. Raises errors as ``check_account``, which
    prints ``first`` before its commands.
    """
    check_account(connection, organisation_id, organisation, email, existing, role, first)
    known = db.accounts.user(connection, email)
    user_id = known.id if known is not None else db.accounts.add_user(connection, email, password_hash)
    if known is not None and existing is not Existing.keep_password:
        reset_password(connection, known, password_hash)
    db.accounts.add_member(connection, organisation_id, user_id, role)
    db.invitations.delete_for(connection, organisation_id, email)
    db.audit.append(connection, Event.member_add, email, organisation_id=organisation_id, by=None, detail=role.name)
    return user_id


def reset_password(connection: Connection, user: User, password_hash: str) -> None:
    """Set a password for a user. All their sign-ins and access tokens end, and wrong passwords are forgiven."""
    db.accounts.set_password(connection, user.id, password_hash)
    operator = db.audit.OPERATOR
    db.audit.append_for_account(connection, Event.password_change, user.email, "", by=operator, subject=user.email)
    db.throttles.forgive_account(connection, user.email)


def create_organisation(connection: Connection, slug: str, *, create_on_push: bool = False) -> int:
    """Create an organisation; returns its id. Raises NameInvalid and OrganisationExists."""
    slug = parse_slug(slug)
    if db.accounts.organisation_id(connection, slug) is not None:
        msg = f"There is already an organisation {slug}. polly-server org list shows all organisations."
        raise OrganisationExists(msg)
    made = db.accounts.add_organisation(connection, slug)
    db.audit.append(connection, Event.organisation_create, slug, organisation_id=made, by=None)
    if create_on_push:
        db.accounts.set_create_on_push(connection, made, on=True)
    return made


def describe_contents(connection: Connection, slug: str) -> str:
    """How many repositories and members an organisation has, in words. Raises OrganisationUnknown."""
    row = db.accounts.organisation_totals(connection, require_organisation(connection, slug))
    return f"{counted(row.repositories, 'repository')} and {counted(row.members, 'member')}"


def require_organisation(connection: Connection, slug: str) -> int:
    """The id of an organisation. Raises OrganisationUnknown."""
    known = db.accounts.organisation_id(connection, slug)
    if known is None:
        msg = (
            f"There is no organisation {slug[:100]!r}. polly-server org list shows all organisations; "
            "polly-server org create creates one."
        )
        raise OrganisationUnknown(msg)
    return known
