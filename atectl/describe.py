"""`ate describe`: all that is known of one actor, for people."""

import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import click
from google.protobuf import timestamp_pb2

from atectl import history, options, output
from atectl.connection import Session
from atectl.history import EVENTS, Kept
from atectl.nouns import TEMPLATE, Query, golden_state, status_name
from atectl.options import Service
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atepb import ateapi_pb2 as pb

# The last ones of an actor that are shown; `ate get events` has all.
_EVENTS: Final = 10
_LABEL_WIDTH: Final = 16
# Exit codes above it are of a program that a signal ended (wait(2), as shells say it).
_SIGNALLED: Final = 128
# What is said of each event; their actor is known.
_SHOWN: Final = frozenset({"TIME", "WHAT", "STATUS", "ELAPSED", "REASON", "MESSAGE"})

Line = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Known:
    """What the service says about an actor.

    Attributes:
        actor: The actor.
        snapshots: Newest first.
        events: Oldest first.
        template: The revision that it was created from; None: it was replaced or deleted.
    """

    actor: pb.Actor
    snapshots: Sequence[Kept]
    events: Sequence[pb.Event]
    template: pb.Resource | None


@click.group()
def describe() -> None:
    """Show all that is known of an actor."""


@describe.command("actor")
@click.argument("name")
@options.atespace_option
@options.service_options()
def _actor(*, name: str, atespace: str, service: Service) -> None:
    """Show an actor: where it is, why it crashed, what helps, its snapshots and last events."""
    ref = pb.ActorRef(atespace=atespace, name=name)
    click.echo(text(service.run(lambda session: _ask(session, ref))))


async def _ask(session: Session, ref: pb.ActorRef) -> Known:
    got = await session.call(session.actors.GetActor, pb.GetActorRequest(actor_ref=ref))
    listed = await history.events(session, Query(ref.name, ref.atespace))
    return Known(
        actor=got.actor,
        snapshots=await history.snapshots_of(session, got.actor, tolerate_gone=True),
        # A former actor of the name has another uid.
        events=[it for it in listed.events if it.actor_uid == got.actor.uid],
        template=await _template(session, got.actor),
    )


async def _template(session: Session, actor: pb.Actor) -> pb.Resource | None:
    request = pb.GetResourceRequest(
        kind=TEMPLATE,
        namespace=actor.actor_template_namespace,
        name=actor.actor_template_name,
    )
    try:
        resource = (await session.call(session.catalog.GetResource, request)).resource
    except AteError as exc:
        if exc.reason is not Reason.RESOURCE_NOT_FOUND:
            raise
        return None
    return resource if resource.uid == actor.actor_template_uid else None


def text(known: Known) -> str:
    """Return the description, without a line end."""
    actor = known.actor
    parts = [_block(_about(known))]
    if actor.HasField("crash"):
        parts.append("Crash:\n" + _block(_crash(actor.crash, known.snapshots), "  "))
        parts.append("Next:\n" + "\n".join(_indented(actor.crash.next_command)))
    if known.snapshots:
        columns = [it for it in history.SNAPSHOTS.columns if not it.wide and it.title != "ACTOR"]
        table = output.table(columns, known.snapshots)
        parts.append("Snapshots:\n" + "\n".join(_indented(table)))
    if known.events:
        last = known.events[-_EVENTS:]
        columns_ = [it for it in EVENTS.columns if it.title in _SHOWN]
        more = f"last {len(last)} of {len(known.events)}" if len(last) < len(known.events) else ""
        title = f"Events ({more}):\n" if more else "Events:\n"
        parts.append(title + "\n".join(_indented(output.table(columns_, last))))
    return "\n\n".join(parts)


def _about(known: Known) -> Iterator[Line]:
    actor = known.actor
    yield "Name", actor.actor_id
    yield "Atespace", actor.atespace
    yield "UID", actor.uid
    yield "Status", status_name(actor)
    if actor.upload_pending:
        yield "Upload", "pending: saved on its node only, and uploaded as soon as that works"
    if actor.operation_id:
        yield "Operation", actor.operation_id
    if actor.ateom_pod_name:
        pool = f"{actor.ateom_pod_namespace}/{actor.worker_pool_name}"
        yield "Worker", f"{actor.ateom_pod_name} of pool {pool}, on node {actor.node_name}"
        yield "Address", actor.ateom_pod_ip
    yield "Epoch", str(actor.epoch)
    yield "Created", _ago(actor.create_time)
    yield "Changed", _ago(actor.update_time)
    if actor.worker_selector.match_labels:
        labels = sorted(actor.worker_selector.match_labels.items())
        yield "Selector", ",".join(f"{key}={value}" for key, value in labels)
    yield "Template", f"{actor.actor_template_namespace}/{actor.actor_template_name}"
    yield from _policies(known.template)


def _policies(template: pb.Resource | None) -> Iterator[Line]:
    if template is None:
        yield "Policies", "of a revision of the template that was replaced or deleted"
        return
    spec = output.to_dict(template.spec)
    yield "On crash", str(spec.get("onCrash", "Hold"))
    yield "Suspend fails", str(spec.get("onSuspendFailure", "Crash"))
    if template.HasField("golden"):
        yield "Golden", _golden(template)
        yield "Golden fails", str(spec.get("goldenFallback", "Boot"))


def _golden(template: pb.Resource) -> str:
    golden = template.golden
    state = golden_state(template)
    if golden.reason:
        state = f"{state} ({golden.reason}: {golden.message})"
    of = f"{golden.actor_ref.atespace}/{golden.actor_ref.name}"
    return f"{state}, snapshot {golden.snapshot.snapshot_id} of {of}, set {_ago(golden.set_time)}"


def _crash(crash: pb.CrashRecord, snapshots: Sequence[Kept]) -> Iterator[Line]:
    yield "Reason", crash.reason
    yield "Message", crash.message
    yield "Time", _ago(crash.time)
    step = f", step {crash.step}" if crash.step else ""
    yield "During", f"{crash.verb or 'no operation: it was RUNNING'}{step}"
    if crash.operation_id:
        yield "Operation", crash.operation_id
    where = [f"node {crash.node_name or crash.node_id}" if crash.node_id else crash.node_name]
    where.append(f"worker {crash.worker_name}" if crash.worker_name else "")
    yield "Where", ", ".join(filter(None, where))
    yield "Epoch", str(crash.epoch)
    if crash.crashes_in_a_row > 1:
        yield "In a row", f"{crash.crashes_in_a_row} crashes"
    if crash.HasField("exit_code"):
        yield "Exit code", _exit(crash.exit_code)
    if crash.last_output:
        yield "Last output", crash.last_output
    yield "Last good", _snapshot(crash.last_good_snapshot, snapshots)
    yield "Salvage", _snapshot(crash.salvage_snapshot, snapshots)


def _exit(code: int) -> str:
    number = code - _SIGNALLED
    names = {it.value: it.name for it in signal.Signals}
    return f"{code} ({names[number]})" if number in names else str(code)


def _snapshot(snapshot_id: str, snapshots: Iterable[Kept]) -> str:
    if not snapshot_id:
        return "none"
    for kept in snapshots:
        if kept.info.snapshot_id == snapshot_id:
            age = output.age(kept.info.create_time, output.now())
            where = history.where_of(kept.info)
            return f"{snapshot_id} ({where}, {output.size(kept.info.size_bytes)}, {age} ago)"
    return f"{snapshot_id} (not kept any more)"


def _ago(when: timestamp_pb2.Timestamp) -> str:
    moment = output.moment(when)
    return f"{moment} ({output.age(when, output.now())} ago)" if moment else ""


def _block(lines: Iterable[Line], indent: str = "") -> str:
    """Return `Label:  text` lines; a text of several lines goes below its label."""
    told: list[str] = []
    for label, content in lines:
        rows = [output.clean(row) for row in content.splitlines()] or [""]
        head = f"{indent}{label + ':':<{_LABEL_WIDTH}}"
        if len(rows) == 1:
            told.append((head + (rows[0] or "-")).rstrip())
        else:
            told += [head.rstrip(), *(f"{indent}  | {row}" for row in rows)]
    return "\n".join(told)


def _indented(content: str) -> list[str]:
    return [f"  {output.clean(line)}" for line in content.splitlines()]
