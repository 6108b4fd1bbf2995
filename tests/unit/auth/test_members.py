"""Inviting people to an organisation, and managing its members."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from polly_dockers.auth import invitations, members, sign_in
from polly_dockers.errors import (
    BadRequest,
    Denied,
    InvitationUnknown,
    LastAdmin,
    MemberExists,
    MemberUnknown,
    OrganisationExists,
    OrganisationUnknown,
    TooManyRequests,
    Unauthorized,
)
from polly_dockers.model import Role
from support.use_cases import ADMIN, ORG, OTHER_ORG, OUTSIDER, PASSWORD, READER, WRITER, email

if TYPE_CHECKING:
    from polly_dockers.context import Context
    from polly_dockers.model import Actor
    from support.use_cases import Clock

NEW = "new@acme.example"
ADDRESS = "203.0.113.1"


async def invite(context: Context, who: str = NEW, role: Role = Role.writer, *, actor: Actor = ADMIN) -> str:
    """Invite somebody to acme; the code."""
    _, code = await invitations.invite(context, actor, ORG, email=who, role=role)
    return code


async def accept(context: Context, code: str, who: str = NEW, password: str = PASSWORD) -> None:
    """Redeem a code with a password."""
    await invitations.accept_with_password(context, code, who, password, ADDRESS)


async def refused(context: Context, code: str, who: str = NEW) -> None:
    """The code is not valid for that email."""
    with pytest.raises(InvitationUnknown):
        await accept(context, code, who)


async def roles(context: Context) -> dict[str, str]:
    """The members of acme by their emails, as a reader sees them."""
    found, total = await members.page(context, READER, ORG, after="", newest_first=False, limit=100)
    assert total == len(found)
    return {each.email: each.role.name for each in found}


async def test_a_code_makes_an_account_and_a_member(context: Context) -> None:
    """Somebody without an account redeems a code, and signs in with the password that they chose."""
    await accept(context, await invite(context))
    found = await sign_in.sign_in(context, NEW, PASSWORD, ADDRESS)
    [(slug, role, _)] = await members.memberships(context, found)
    assert (slug, role) == (ORG, Role.writer)
    assert (await roles(context))[NEW] == "writer"


async def test_a_code_works_once(context: Context) -> None:
    """A code that was redeemed is not valid any more."""
    code = await invite(context)
    await accept(context, code)
    await refused(context, code)


async def test_a_code_is_for_one_email(context: Context) -> None:
    """A code is of no use with another email address."""
    code = await invite(context)
    await refused(context, code, "other@acme.example")
    await accept(context, code)


async def test_a_code_expires(context: Context, clock: Clock) -> None:
    """A code is valid for seven days, and its invitation is listed no longer."""
    late, in_time = await invite(context), await invite(context, "other@acme.example")
    clock.advance(days=7, seconds=-60)
    await accept(context, in_time, "other@acme.example")
    clock.advance(seconds=120)
    await refused(context, late)
    assert await invitations.pending(context, READER, ORG, after="", newest_first=False, limit=10) == ([], 0)


async def test_a_second_invitation_replaces_the_first(context: Context) -> None:
    """If somebody is invited again, only the new code is valid, with its role."""
    first = await invite(context)
    second = await invite(context, role=Role.reader)
    await refused(context, first)
    await accept(context, second)
    assert (await roles(context))[NEW] == "reader"


async def test_an_invitation_is_revoked(context: Context) -> None:
    """A revoked code is not valid, and can be revoked once."""
    code = await invite(context)
    await invitations.revoke(context, ADMIN, ORG, NEW)
    await refused(context, code)
    with pytest.raises(InvitationUnknown):
        await invitations.revoke(context, ADMIN, ORG, NEW)


async def test_pending_invitations_are_listed(context: Context) -> None:
    """Members see who was invited and has not joined yet."""
    await invite(context)
    found, total = await invitations.pending(context, READER, ORG, after="", newest_first=False, limit=10)
    assert ([each.email for each in found], total) == ([NEW], 1)


async def test_an_account_keeps_its_password(context: Context) -> None:
    """Somebody who has an account joins with its password, and with no other."""
    code = await invite(context, email(OUTSIDER))
    with pytest.raises(Unauthorized):
        await accept(context, code, email(OUTSIDER), "another password")
    await accept(context, code, email(OUTSIDER))
    assert (await roles(context))[email(OUTSIDER)] == "writer"


async def test_who_is_signed_in_needs_no_password(context: Context) -> None:
    """Somebody who is signed in redeems a code for their own email."""
    code = await invite(context, email(OUTSIDER))
    other = await sign_in.sign_in(context, email(READER), PASSWORD, ADDRESS)
    with pytest.raises(InvitationUnknown):
        await invitations.accept(context, other, code, ADDRESS)
    caller = await sign_in.sign_in(context, email(OUTSIDER), PASSWORD, ADDRESS)
    await invitations.accept(context, caller, code, ADDRESS)
    assert (await roles(context))[email(OUTSIDER)] == "writer"


async def test_a_wrong_password_leaves_the_invitation(context: Context) -> None:
    """A password that no account takes makes no account, and the code stays valid."""
    code = await invite(context)
    with pytest.raises(BadRequest):
        await accept(context, code, password="short")
    await accept(context, code)


async def test_guessing_codes_is_stopped(context: Context) -> None:
    """After too many wrong codes, the right one is refused for a while."""
    code = await invite(context)
    for _ in range(10):
        await refused(context, "invite-wrong")
    with pytest.raises(TooManyRequests):
        await accept(context, code)


async def test_invitations_of_a_former_admin_end(context: Context) -> None:
    """The codes of an admin are not valid once they are no admin any more."""
    await members.set_role(context, ADMIN, ORG, email(WRITER), Role.admin)
    code = await invite(context, actor=WRITER)
    await members.set_role(context, ADMIN, ORG, email(WRITER), Role.writer)
    await refused(context, code)


async def test_a_member_is_not_invited_again(context: Context) -> None:
    """A member cannot be invited to the same organisation."""
    with pytest.raises(MemberExists):
        await invite(context, email(READER))


@pytest.mark.parametrize("actor", [READER, WRITER])
async def test_only_an_admin_manages_members(context: Context, actor: Actor) -> None:
    """Readers and writers can neither invite nor remove anybody, nor change a role."""
    for refused_ in (
        invite(context, actor=actor),
        members.set_role(context, actor, ORG, email(READER), Role.admin),
        members.remove(context, actor, ORG, email(READER)),
        invitations.revoke(context, actor, ORG, NEW),
    ):
        with pytest.raises(Denied):
            await refused_


async def test_an_outsider_manages_nothing(context: Context) -> None:
    """The admin of another organisation has no rights in this one."""
    for refused_ in (invite(context, actor=OUTSIDER), members.remove(context, OUTSIDER, ORG, email(READER))):
        with pytest.raises(OrganisationUnknown):
            await refused_


async def test_the_last_admin_stays(context: Context) -> None:
    """The only admin can be neither removed nor given a lower role."""
    with pytest.raises(LastAdmin):
        await members.remove(context, ADMIN, ORG, email(ADMIN))
    with pytest.raises(LastAdmin):
        await members.set_role(context, ADMIN, ORG, email(ADMIN), Role.writer)
    await members.set_role(context, ADMIN, ORG, email(WRITER), Role.admin)
    await members.remove(context, WRITER, ORG, email(ADMIN))
    assert email(ADMIN) not in await roles(context)


async def test_who_is_not_a_member_cannot_be_changed(context: Context) -> None:
    """Changing or removing somebody who is not a member is an error, and it says so of people who were invited."""
    with pytest.raises(MemberUnknown, match="is not a member"):
        await members.remove(context, ADMIN, ORG, NEW)
    await invite(context)
    with pytest.raises(MemberUnknown, match="has not joined yet"):
        await members.set_role(context, ADMIN, ORG, NEW, Role.admin)


async def test_an_organisation_is_made_once(context: Context) -> None:
    """The name of an organisation is taken once, and one that does not exist has no members."""
    with pytest.raises(OrganisationExists):
        await context.database.write(members.create_organisation, OTHER_ORG)
    with pytest.raises(OrganisationUnknown):
        await members.page(context, ADMIN, "nobody", after="", newest_first=False, limit=1)
