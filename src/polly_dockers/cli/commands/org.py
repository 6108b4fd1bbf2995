"""``polly org``: options and help."""

from __future__ import annotations

from polly_dockers.cli.call import Call
from polly_dockers.cli.group import Group
from polly_dockers.cli.options import Output

group = Group(
    "polly org",
    "List your organisations, and choose which one the commands use.",
    "polly org list\npolly org use biolab",
    "What would you like to do with your organisations?",
)
group.ask_if_alone()


@group.command("list", "polly org list\npolly org list --output json")
def list_(call: Call, *, output: Output = "table") -> None:
    """List the organisations that you are a member of.

    The commands use the default one unless you give --org or set POLLY_ORG. It is the one that you chose with
    polly org use, or else the one that you joined first.
    """
    from polly_dockers.cli.actions import org

    org.list_(call, output)


@group.command("use", "polly org use biolab", argument="org")
def use(call: Call) -> None:
    """Choose the default organisation of the commands.

    It is saved in the profile. --org and POLLY_ORG override it.
    """
    from polly_dockers.cli.actions import org

    org.use(call)
