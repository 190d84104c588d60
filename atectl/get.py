"""`ate get`: lists and single objects."""

from collections.abc import Callable
from typing import Final

import click
from google.protobuf.message import Message

from atectl import options, output
from atectl.history import EVENTS, SNAPSHOTS
from atectl.nouns import ACTORS, ATESPACES, POOLS, TEMPLATES, WORKERS, Noun, Query
from atectl.options import Service


@click.group()
def get() -> None:
    """Show actors, their events and snapshots, atespaces, workers, templates or pools."""


def _show(noun: Noun, query: Query, service: Service, output_as: str) -> None:
    listed = service.run(lambda session: noun.fetch(session, query))
    content = listed if isinstance(listed, Message) else listed.plain()
    if output.show(content, output_as):
        return
    items = noun.items(listed)
    if output_as == "name":
        for item in items:
            click.echo(f"{noun.singular}/{noun.name(item)}")
    elif items:
        columns = [c for c in noun.columns if output_as == "wide" or not c.wide]
        click.echo(output.table(columns, items))
    else:
        # Not on standard output: what reads a table must not take it for one.
        click.echo(f"no {noun.plural}", err=True)


def _of_actors(noun: Noun, text: str) -> click.Command:
    """Return the command of actors, or of what belongs to them."""

    @click.command(noun.plural, help=text)
    @click.argument("name", required=False, default="", metavar="[ACTOR]")
    @click.option("-a", "--atespace", default="", metavar="ATESPACE", help="Only this atespace.")
    @click.option("-A", "--all-atespaces", is_flag=True, help="Every atespace.")
    @options.output_option
    @options.service_options()
    def show(
        *, name: str, atespace: str, all_atespaces: bool, output_as: str, service: Service
    ) -> None:
        if name and not atespace:
            msg = "one actor needs its atespace: -a ATESPACE"
            raise click.UsageError(msg)
        if bool(atespace) == all_atespaces:
            msg = "say which actors: either -a ATESPACE or -A"
            raise click.UsageError(msg)
        _show(noun, Query(name, atespace), service, output_as)

    return show


def _actors(noun: Noun) -> click.Command:
    return _of_actors(noun, "Show actors (-a or -A), or one actor (-a).")


def _events(noun: Noun) -> click.Command:
    return _of_actors(
        noun, "Show what happened to actors (-a or -A), or to one (-a), deleted ones included."
    )


def _snapshots(noun: Noun) -> click.Command:
    return _of_actors(noun, "Show the snapshots kept of actors (-a or -A), or of one (-a).")


def _named(noun: Noun) -> click.Command:
    """Return the command of a noun whose names have no scope."""

    @click.command(noun.plural, help=f"Show {noun.plural}, or one {noun.singular}.")
    @click.argument("name", required=False, default="")
    @options.output_option
    @options.service_options()
    def show(*, name: str, output_as: str, service: Service) -> None:
        _show(noun, Query(name), service, output_as)

    return show


def _namespaced(noun: Noun) -> click.Command:
    """Return the command of a noun of the catalog: a list is of every namespace or of one."""

    @click.command(noun.plural, help=f"Show {noun.plural}, or one {noun.singular}.")
    @click.argument("name", required=False, default="")
    @options.namespace_option
    @options.output_option
    @options.service_options()
    def show(*, name: str, namespace: str, output_as: str, service: Service) -> None:
        query = Query(scope=namespace)
        if name:
            scope, plain = options.namespaced(name, namespace)
            query = Query(plain, scope)
        _show(noun, query, service, output_as)

    return show


_MAKERS: Final[tuple[tuple[Noun, Callable[[Noun], click.Command]], ...]] = (
    (ACTORS, _actors),
    (EVENTS, _events),
    (SNAPSHOTS, _snapshots),
    (ATESPACES, _named),
    (WORKERS, _named),
    (TEMPLATES, _namespaced),
    (POOLS, _namespaced),
)
for _noun, _make in _MAKERS:
    _command = _make(_noun)
    for _name in (_noun.plural, _noun.singular):
        get.add_command(_command, _name)
