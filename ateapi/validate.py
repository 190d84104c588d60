"""Checks of requests: every violation of a request at once, fields named as in the .proto."""

from collections.abc import Mapping
from typing import Final

from ateapi import names
from ateapi.lifecycle import FailurePolicy
from ateapi.store.rows import ActorRef
from ateerrors.errors import FieldViolation, invalid_argument
from atepb import ateapi_pb2 as pb

# Where a field is: names of fields and indexes of lists.
Path = tuple[str | int, ...]

MAX_PAGE_SIZE: Final = 1000
MAX_SELECTOR_LABELS: Final = 10

_FAILURE_POLICIES: Final["Mapping[int, FailurePolicy | None]"] = {
    pb.FAILURE_POLICY_UNSPECIFIED: None,
    pb.FAILURE_POLICY_CRASH: FailurePolicy.CRASH,
    pb.FAILURE_POLICY_KEEP_RUNNING: FailurePolicy.KEEP_RUNNING,
    pb.FAILURE_POLICY_PAUSE: FailurePolicy.PAUSE,
}
_is_label: Final = names.DNS_LABEL.fullmatch


def actor_ref(ref: pb.ActorRef) -> ActorRef:
    """Return whom a request means.

    Raises:
        AteError: INVALID_ARGUMENT.
    """
    atespace, name = ref.atespace, ref.name
    # On the path of every request: nothing is built for a valid one but the answer.
    if _is_label(atespace) and _is_label(name):
        return ActorRef(atespace, name)
    raise invalid_argument(_ref_violations(ref, names.dns_label))


def atespace_name(name: str) -> str:
    """Return the name of an atespace that is to be read or deleted.

    Raises:
        AteError: INVALID_ARGUMENT.
    """
    return _checked("name", name, names.dns_label)


def new_atespace(name: str) -> str:
    """Return the name of an atespace that is to be created.

    Raises:
        AteError: INVALID_ARGUMENT.
    """
    return _checked("name", name, names.new_atespace)


def create_actor(request: pb.CreateActorRequest) -> tuple[ActorRef, Mapping[str, str]]:
    """Return the actor's name and selector.

    Raises:
        AteError: INVALID_ARGUMENT.
    """
    selector = request.worker_selector.match_labels
    violations = [
        *_ref_violations(request.actor_ref, names.new_atespace),
        *_violation("actor_template_namespace", request.actor_template_namespace, names.dns_label),
        *_violation("actor_template_name", request.actor_template_name, names.dns_subdomain),
        *_selector_violations(selector),
    ]
    if violations:
        raise invalid_argument(violations)
    return ActorRef(request.actor_ref.atespace, request.actor_ref.name), dict(selector)


def update_actor(request: pb.UpdateActorRequest) -> tuple[ActorRef, Mapping[str, str]]:
    """Return the actor's name and its new selector.

    Raises:
        AteError: INVALID_ARGUMENT.
    """
    selector = request.worker_selector.match_labels
    violations = [
        *_ref_violations(request.actor_ref, names.dns_label),
        *_selector_violations(selector),
    ]
    if violations:
        raise invalid_argument(violations)
    return ActorRef(request.actor_ref.atespace, request.actor_ref.name), dict(selector)


def list_actors(request: pb.ListActorsRequest) -> int:
    """Return the page size that is meant: 0 is the most.

    Raises:
        AteError: INVALID_ARGUMENT.
    """
    violations = _page_violations(request)
    if violations:
        raise invalid_argument(violations)
    return request.page_size or MAX_PAGE_SIZE


def list_events(request: pb.ListEventsRequest) -> int:
    """Return the page size that is meant: 0 is the most.

    Raises:
        AteError: INVALID_ARGUMENT.
    """
    violations = _page_violations(request)
    if request.actor:
        violations += _violation("actor", request.actor, names.dns_label)
        if not request.atespace:
            what = "is required with an actor: its name is one only in its atespace"
            violations.append(FieldViolation("atespace", what))
    if violations:
        raise invalid_argument(violations)
    return request.page_size or MAX_PAGE_SIZE


def on_failure(
    request: pb.SuspendActorRequest | pb.PauseActorRequest,
) -> FailurePolicy | None:
    """Return what a caller wants when its actor cannot be saved; None: what the template says.

    Raises:
        AteError: INVALID_ARGUMENT.
    """
    if request.on_failure in _FAILURE_POLICIES:
        return _FAILURE_POLICIES[request.on_failure]
    allowed = ", ".join(pb.FailurePolicy.keys())
    what = f"must be one of {allowed}; is {request.on_failure}"
    raise invalid_argument([FieldViolation("on_failure", what)])


def path_text(path: Path) -> str:
    """Return a path as people write it: `spec.containers[0].image`, `labels["a.b/c"]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.isidentifier():
            text += f".{part[:128]}" if text else part[:128]
        else:
            text += f'["{part[:128]}"]'
    return text


def label_violations(field: Path, labels: Mapping[str, str]) -> list[FieldViolation]:
    """Return what is wrong with keys and values of labels, at the path of each label."""
    return [
        FieldViolation(path_text((*field, key)), problem)
        for key, value in labels.items()
        for problem in (names.label_key(key), names.label_value(value))
        if problem
    ]


def _page_violations(
    request: pb.ListActorsRequest | pb.ListEventsRequest,
) -> list[FieldViolation]:
    violations = []
    if not 0 <= request.page_size <= MAX_PAGE_SIZE:
        what = f"must be 0 to {MAX_PAGE_SIZE}, is {request.page_size}"
        violations.append(FieldViolation("page_size", what))
    if request.atespace:
        violations += _violation("atespace", request.atespace, names.dns_label)
    return violations


def _selector_violations(labels: Mapping[str, str]) -> list[FieldViolation]:
    field = ("worker_selector", "match_labels")
    if len(labels) > MAX_SELECTOR_LABELS:
        what = f"must have at most {MAX_SELECTOR_LABELS} labels, has {len(labels)}"
        return [FieldViolation(path_text(field), what)]
    return label_violations(field, labels)


def _ref_violations(ref: pb.ActorRef, atespace: names.Check) -> list[FieldViolation]:
    return [
        *_violation("actor_ref.atespace", ref.atespace, atespace),
        *_violation("actor_ref.name", ref.name, names.dns_label),
    ]


def _violation(field: str, value: str, check: names.Check) -> list[FieldViolation]:
    problem = check(value)
    return [FieldViolation(field, problem)] if problem else []


def _checked(field: str, value: str, check: names.Check) -> str:
    violations = _violation(field, value, check)
    if violations:
        raise invalid_argument(violations)
    return value
