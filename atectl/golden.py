"""`ate set golden` and `ate clear golden`: what the actors of a template begin with."""

from typing import Final

import click

from atectl import options, output
from atectl.nouns import TEMPLATES
from atectl.options import Service
from atepb import ateapi_pb2 as pb

_State = pb.GoldenSnapshot.State


@click.group("set")
def set_() -> None:
    """Set the golden snapshot of a template."""


@click.group()
def clear() -> None:
    """Clear the golden snapshot of a template."""


_template_argument: Final = click.argument("template", metavar="[NS/]TEMPLATE")


@set_.command("golden")
@_template_argument
@click.option("--from", "actor", required=True, metavar="ACTOR", help="A SUSPENDED actor of it.")
@options.atespace_option
@options.namespace_option
@options.output_option
@options.service_options(options.RESUME_TIMEOUT_S)
def _set(  # noqa: PLR0913  # the options
    *,
    template: str,
    actor: str,
    atespace: str,
    namespace: str,
    output_as: str,
    service: Service,
) -> None:
    """Let the actors of a template that have no snapshot begin with that of another actor.

    The snapshot is read and verified first, and kept as long as it is golden. It holds all that
    the actor had in its memory: every new actor of the template begins with that.
    """
    scope, name = options.namespaced(template, namespace)
    request = pb.SetGoldenSnapshotRequest(
        namespace=scope, name=name, actor_ref=pb.ActorRef(atespace=atespace, name=actor)
    )
    response = service.run(
        lambda session: session.call(session.catalog.SetGoldenSnapshot, request)
    )
    if not output.show(response, output_as):
        snapshot_id = response.resource.golden.snapshot.snapshot_id
        click.echo(f"{TEMPLATES.singular}/{name} golden snapshot {snapshot_id} set")


@clear.command("golden")
@_template_argument
@options.namespace_option
@options.service_options()
def _clear(*, template: str, namespace: str, service: Service) -> None:
    """Let the actors of a template that have no snapshot boot from its image again."""
    scope, name = options.namespaced(template, namespace)
    request = pb.ClearGoldenSnapshotRequest(namespace=scope, name=name)
    service.run(lambda session: session.call(session.catalog.ClearGoldenSnapshot, request))
    click.echo(f"{TEMPLATES.singular}/{name} golden snapshot cleared")
