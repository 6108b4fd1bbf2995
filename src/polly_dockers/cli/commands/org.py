"""``polly org …``: the options and the help of the commands."""

from __future__ import annotations

from polly_dockers.cli.command import Call, Group, Output

group = Group(
    "polly org",
    "Your organisations, and which one the commands mean.",
    "polly org list\npolly org use biolab",
    "What would you like to do with your organisations?",
)
group.alone()


@group.command("list", "polly org list\npolly org list --output json")
def list_(call: Call, *, output: Output = "table") -> None:
    """List the organisations that you are a member of.

    The default is the one that the commands mean where --org and POLLY_ORG say nothing: the one that you chose with
    polly org use, or else the one that you joined first.
    """
    from polly_dockers.cli.actions import org

    org.list_(call, output)


@group.command("use", "polly org use biolab", argument="org")
def use(call: Call) -> None:
    """Choose the organisation that the commands mean from now on.

    It is kept with the profile. --org and POLLY_ORG come first.
    """
    from polly_dockers.cli.actions import org

    org.use(call)
