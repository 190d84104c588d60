"""The verbs of actors: resume, suspend, pause; create and delete of everything."""

import click

from atectl import options, output
from atectl.nouns import POOL, TEMPLATE, status_line
from atectl.options import Service
from atepb import ateapi_pb2 as pb


@click.group()
def resume() -> None:
    """Wake an actor."""


@click.group()
def suspend() -> None:
    """Save an actor to its snapshot location and free its worker."""


@click.group()
def pause() -> None:
    """Save an actor on its node and free its worker."""


@click.group()
def create() -> None:
    """Create an atespace or an actor."""


@click.group()
def delete() -> None:
    """Delete an actor, atespace, template or pool."""


@resume.command("actor")
@click.argument("name")
@options.atespace_option
@click.option("--boot", is_flag=True, help="Boot from the image, not from a golden snapshot.")
@options.output_option
@options.service_options(options.RESUME_TIMEOUT_S)
def _resume(*, name: str, atespace: str, boot: bool, output_as: str, service: Service) -> None:
    """Wake an actor; prints its status and address."""
    request = pb.ResumeActorRequest(actor_ref=_ref(atespace, name), boot=boot)
    response = service.run(lambda session: session.call(session.actors.ResumeActor, request))
    if not output.show(response, output_as):
        _say(response.actor)


@suspend.command("actor")
@click.argument("name")
@options.atespace_option
@options.on_failure_option
@options.output_option
@options.service_options(options.SUSPEND_TIMEOUT_S)
def _suspend(
    *,
    name: str,
    atespace: str,
    on_failure: "pb.FailurePolicy.ValueType",
    output_as: str,
    service: Service,
) -> None:
    """Save an actor to its snapshot location and free its worker."""
    request = pb.SuspendActorRequest(actor_ref=_ref(atespace, name), on_failure=on_failure)
    response = service.run(lambda session: session.call(session.actors.SuspendActor, request))
    if not output.show(response, output_as):
        _say(response.actor)


@pause.command("actor")
@click.argument("name")
@options.atespace_option
@options.on_failure_option
@options.output_option
@options.service_options(options.SUSPEND_TIMEOUT_S)
def _pause(
    *,
    name: str,
    atespace: str,
    on_failure: "pb.FailurePolicy.ValueType",
    output_as: str,
    service: Service,
) -> None:
    """Save an actor on its node and free its worker."""
    request = pb.PauseActorRequest(actor_ref=_ref(atespace, name), on_failure=on_failure)
    response = service.run(lambda session: session.call(session.actors.PauseActor, request))
    if not output.show(response, output_as):
        _say(response.actor)


@create.command("atespace")
@click.argument("name")
@options.service_options()
def _create_atespace(*, name: str, service: Service) -> None:
    """Create an atespace."""
    request = pb.CreateAtespaceRequest(name=name)
    service.run(lambda session: session.call(session.actors.CreateAtespace, request))
    click.echo(f"atespace/{name} created")


@create.command("actor")
@click.argument("name")
@options.atespace_option
@click.option("-t", "--template", required=True, metavar="[NS/]TEMPLATE", help="Its template.")
@click.option(
    "-l", "--selector", multiple=True, metavar="KEY=VALUE", help="Label of the pools to run on."
)
@options.service_options()
def _create_actor(
    *, name: str, atespace: str, template: str, selector: tuple[str, ...], service: Service
) -> None:
    """Create an actor; it starts SUSPENDED, and its first resume starts its program."""
    namespace, template_name = options.namespaced(template)
    request = pb.CreateActorRequest(
        actor_ref=_ref(atespace, name),
        actor_template_namespace=namespace,
        actor_template_name=template_name,
    )
    if selector:
        request.worker_selector.match_labels.update(map(_label, selector))
    service.run(lambda session: session.call(session.actors.CreateActor, request))
    click.echo(f"actor/{name} created")


@delete.command("actor")
@click.argument("name")
@options.atespace_option
@click.option("--any-state", is_flag=True, help="Also one that is not at rest; kills its sandbox.")
@options.service_options(120)
def _delete_actor(*, name: str, atespace: str, any_state: bool, service: Service) -> None:
    """Delete an actor and its snapshots."""
    request = pb.DeleteActorRequest(actor_ref=_ref(atespace, name), any_state=any_state)
    service.run(lambda session: session.call(session.actors.DeleteActor, request))
    click.echo(f"actor/{name} deleted")


@delete.command("atespace")
@click.argument("name")
@options.service_options()
def _delete_atespace(*, name: str, service: Service) -> None:
    """Delete an atespace that is empty."""
    request = pb.DeleteAtespaceRequest(name=name)
    service.run(lambda session: session.call(session.actors.DeleteAtespace, request))
    click.echo(f"atespace/{name} deleted")


@delete.command("template")
@click.argument("name", metavar="[NS/]NAME")
@options.namespace_option
@options.service_options()
def _delete_template(*, name: str, namespace: str, service: Service) -> None:
    """Delete a template; actors that were created from it keep theirs."""
    click.echo(f"template/{_delete_resource(TEMPLATE, name, namespace, service)} deleted")


@delete.command("pool")
@click.argument("name", metavar="[NS/]NAME")
@options.namespace_option
@options.service_options()
def _delete_pool(*, name: str, namespace: str, service: Service) -> None:
    """Delete a worker pool."""
    click.echo(f"pool/{_delete_resource(POOL, name, namespace, service)} deleted")


def _delete_resource(kind: str, name: str, namespace: str, service: Service) -> str:
    scope, plain = options.namespaced(name, namespace)
    request = pb.DeleteResourceRequest(kind=kind, namespace=scope, name=plain)
    service.run(lambda session: session.call(session.catalog.DeleteResource, request))
    return plain


def _ref(atespace: str, name: str) -> pb.ActorRef:
    return pb.ActorRef(atespace=atespace, name=name)


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        msg = f"{text!r} is not KEY=VALUE"
        raise click.UsageError(msg)
    return key, value


def _say(actor: pb.Actor) -> None:
    click.echo(status_line(actor))
