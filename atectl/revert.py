"""`ate revert`: the way back of an actor, after a crash above all."""

import click

from atectl import options, output
from atectl.nouns import status_line
from atectl.options import Service
from atepb import ateapi_pb2 as pb


def _named(_context: object, _option: object, said: str | None) -> str:
    """Tell an empty name, which a script's variable may be, from none."""
    if said == "":
        msg = "a snapshot's name is not empty"
        raise click.BadParameter(msg)
    return said or ""


@click.group()
def revert() -> None:
    """Bring an actor back to one of its snapshots."""


@revert.command("actor")
@click.argument("name")
@options.atespace_option
@click.option(
    "--to", "snapshot_id", metavar="SNAPSHOT", callback=_named,
    help="A snapshot of `ate get snapshots`; else the newest that is good, salvage included.",
)  # fmt: skip
@click.option("--resume", is_flag=True, help="Resume it afterwards.")
@click.option(
    "--any-state", is_flag=True,
    help="Also a RUNNING one: its sandbox is killed, what is in no snapshot is lost.",
)  # fmt: skip
@options.output_option
@options.service_options(options.RESUME_TIMEOUT_S)
def _actor(  # noqa: PLR0913  # the options
    *,
    name: str,
    atespace: str,
    snapshot_id: str,
    resume: bool,
    any_state: bool,
    output_as: str,
    service: Service,
) -> None:
    """Bring an actor back to its last good snapshot, or to another one.

    The snapshot is read and verified first; if it is bad, the next one is taken. The actor is
    SUSPENDED then, or PAUSED when the snapshot is on a node. Without any snapshot that can be used
    it begins as a new one does when it is resumed.
    """
    request = pb.RevertActorRequest(
        actor_ref=pb.ActorRef(atespace=atespace, name=name),
        snapshot_id=snapshot_id,
        resume=resume,
        any_state=any_state,
    )
    response = service.run(lambda session: session.call(session.actors.RevertActor, request))
    if not output.show(response, output_as):
        _say(response)


def _say(response: pb.RevertActorResponse) -> None:
    for it in response.skipped:
        line = output.clean(
            f"note: snapshot {it.snapshot_id} not used: {it.message} ({it.reason})"
        )
        click.echo(line, err=True)
    at = f"from snapshot {response.snapshot_id}" if response.snapshot_id else "without a snapshot"
    click.echo(f"{status_line(response.actor)}, {at}")
