"""``polly members``: options and help of list, set-role and remove."""

from __future__ import annotations

from polly_dockers.cli.call import Call
from polly_dockers.cli.group import Group
from polly_dockers.cli.options import Email, Output, Role, Yes

group = Group(
    "polly members",
    "Manage the members of an organisation and their roles.",
    "polly members list\npolly members add --email bob@acme.example --role writer",
    "What would you like to do with the members?",
)
group.ask_if_alone()


@group.command("list", "polly members list\npolly members list --org acme --output json")
def list_(call: Call, *, output: Output = "table") -> None:
    """List the members of the organisation, and who is invited."""
    from polly_dockers.cli.actions import members

    members.list_(call, output)


@group.command("set-role", "polly members set-role --email bob@acme.example --role admin")
def set_role(call: Call, *, email: Email = None, role: Role = None, output: Output = "table") -> None:
    """Change the role of a member.

    It takes effect on the next request.
    """
    from polly_dockers.cli.actions import members

    members.set_role(call, email, role, output)


@group.command("remove", "polly members remove bob@acme.example\npolly members remove --email bob@acme.example --yes")
def remove(call: Call, *, email: Email = None, yes: Yes = False) -> None:
    """Remove a member, or revoke an invitation.

    It takes effect on the next request.
    """
    from polly_dockers.cli.actions import members

    members.remove(call, email, yes=yes)
