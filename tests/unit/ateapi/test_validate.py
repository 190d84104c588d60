"""Bad requests name every bad field at once, as the .proto names it."""

from typing import Any

import pytest

from ateapi import validate
from ateapi.lifecycle import FailurePolicy
from ateapi.store.rows import ActorRef
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atepb import ateapi_pb2 as pb

BAD_LABELS = ["", "A", "a_b", "a.b", "a/b", "a:b", "-a", "a-", "a" * 64, "a\n", "ä", "a*"]


def fields_of(exc: pytest.ExceptionInfo[AteError]) -> list[str]:
    assert exc.value.reason is Reason.INVALID_ARGUMENT
    return [violation.field for violation in exc.value.violations]


def make(**changes: Any) -> pb.CreateActorRequest:
    request = pb.CreateActorRequest(
        actor_ref=pb.ActorRef(atespace="team-a", name="bob"),
        actor_template_namespace="default",
        actor_template_name="counter",
    )
    request.MergeFrom(pb.CreateActorRequest(**changes))
    return request


@pytest.mark.parametrize("name", ["a", "0", "a-b", "a" * 63, "9-z"])
def test_a_label_is_taken(name: str) -> None:
    assert validate.actor_ref(pb.ActorRef(atespace=name, name=name)) == ActorRef(name, name)


@pytest.mark.parametrize("name", BAD_LABELS)
def test_a_name_that_is_no_label_is_refused_wherever_an_actor_is_named(name: str) -> None:
    with pytest.raises(AteError) as exc:
        validate.actor_ref(pb.ActorRef(atespace="team-a", name=name))
    assert fields_of(exc) == ["actor_ref.name"]

    with pytest.raises(AteError) as exc:
        validate.actor_ref(pb.ActorRef(atespace=name, name="bob"))
    assert fields_of(exc) == ["actor_ref.atespace"]


def test_a_missing_actor_ref_names_both_of_its_fields() -> None:
    with pytest.raises(AteError, match="is required") as exc:
        validate.actor_ref(pb.ActorRef())
    assert fields_of(exc) == ["actor_ref.atespace", "actor_ref.name"]


def test_create_reports_all_bad_fields_at_once() -> None:
    request = pb.CreateActorRequest(
        actor_ref=pb.ActorRef(atespace="Team", name=""),
        actor_template_namespace="a/b",
        worker_selector=pb.Selector(match_labels={"a b": "x", "ok": "-no"}),
    )
    with pytest.raises(AteError) as exc:
        validate.create_actor(request)
    assert sorted(fields_of(exc)) == [
        "actor_ref.atespace",
        "actor_ref.name",
        "actor_template_name",
        "actor_template_namespace",
        "worker_selector.match_labels.ok",
        'worker_selector.match_labels["a b"]',
    ]


def test_a_valid_create_gives_name_and_selector() -> None:
    selector = {"disk": "ssd", "example.com/gpu_type": "", "a": "B.c_d-9"}
    request = make(worker_selector=pb.Selector(match_labels=selector))
    assert validate.create_actor(request) == (ActorRef("team-a", "bob"), selector)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("", "v"),
        ("/a", "v"),
        ("A.b/a", "v"),
        ("x/y/z", "v"),
        ("a" * 64, "v"),
        (f"{'a' * 254}/a", "v"),
        ("a-", "v"),
        ("a", "v" * 64),
        ("a", "v\n"),
        ("a", "v v"),
        ("a", "-v"),
    ],
)
def test_labels_follow_the_rules_of_kubernetes(key: str, value: str) -> None:
    request = make(worker_selector=pb.Selector(match_labels={key: value}))
    with pytest.raises(AteError) as exc:
        validate.create_actor(request)
    assert len(exc.value.violations) == 1


def test_a_selector_has_at_most_ten_labels() -> None:
    ten = {f"k{index}": "v" for index in range(10)}
    request = pb.UpdateActorRequest(
        actor_ref=pb.ActorRef(atespace="team-a", name="bob"),
        worker_selector=pb.Selector(match_labels=ten),
    )
    assert validate.update_actor(request)[1] == ten
    request.worker_selector.match_labels["one-more"] = "v"
    with pytest.raises(AteError) as exc:
        validate.update_actor(request)
    assert fields_of(exc) == ["worker_selector.match_labels"]


def test_an_update_without_selector_clears_it() -> None:
    request = pb.UpdateActorRequest(actor_ref=pb.ActorRef(atespace="team-a", name="bob"))
    assert validate.update_actor(request) == (ActorRef("team-a", "bob"), {})


def test_reserved_atespaces_cannot_be_created_nor_filled_but_read() -> None:
    with pytest.raises(AteError, match="reserved") as exc:
        validate.new_atespace("ate-golden")
    assert fields_of(exc) == ["name"]
    with pytest.raises(AteError, match="reserved") as exc:
        validate.create_actor(make(actor_ref=pb.ActorRef(atespace="ate-golden")))
    assert fields_of(exc) == ["actor_ref.atespace"]
    assert validate.atespace_name("ate-golden") == "ate-golden"
    assert validate.actor_ref(pb.ActorRef(atespace="ate-golden", name="x")).atespace


@pytest.mark.parametrize("name", BAD_LABELS)
def test_atespaces_are_labels(name: str) -> None:
    for check in (validate.new_atespace, validate.atespace_name):
        with pytest.raises(AteError) as exc:
            check(name)
        assert fields_of(exc) == ["name"]


@pytest.mark.parametrize(("asked", "meant"), [(0, 1000), (1, 1), (1000, 1000)])
def test_page_size(asked: int, meant: int) -> None:
    assert validate.list_actors(pb.ListActorsRequest(page_size=asked)) == meant


@pytest.mark.parametrize("size", [-1, 1001, 2**31 - 1])
def test_page_size_is_refused_and_not_clamped(size: int) -> None:
    with pytest.raises(AteError) as exc:
        validate.list_actors(pb.ListActorsRequest(page_size=size, atespace="A"))
    assert fields_of(exc) == ["page_size", "atespace"]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("spec", "containers", 0, "image"), "spec.containers[0].image"),
        (("metadata", "labels", "a.b/c"), 'metadata.labels["a.b/c"]'),
        ((), ""),
    ],
)
def test_paths_read_as_people_write_them(path: validate.Path, text: str) -> None:
    assert validate.path_text(path) == text


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (pb.ListEventsRequest(page_size=-1), ["page_size"]),
        (pb.ListEventsRequest(page_size=1001, atespace="A"), ["page_size", "atespace"]),
        (pb.ListEventsRequest(actor="bob"), ["atespace"]),
        (pb.ListEventsRequest(atespace="team-a", actor="B"), ["actor"]),
    ],
)
def test_a_bad_listing_of_events_is_refused(
    request_: pb.ListEventsRequest, fields: list[str]
) -> None:
    with pytest.raises(AteError) as exc:
        validate.list_events(request_)
    assert fields_of(exc) == fields


def test_a_listing_of_events_has_a_page_size() -> None:
    assert validate.list_events(pb.ListEventsRequest()) == validate.MAX_PAGE_SIZE
    assert validate.list_events(pb.ListEventsRequest(atespace="a", actor="b", page_size=7)) == 7


@pytest.mark.parametrize("request_type", [pb.SuspendActorRequest, pb.PauseActorRequest])
def test_a_failure_policy_is_one_of_the_enum(request_type: Any) -> None:
    policies = [
        validate.on_failure(request_type(on_failure=value)) for value in pb.FailurePolicy.values()
    ]
    assert policies == [None, *FailurePolicy]
    with pytest.raises(AteError, match="FAILURE_POLICY_PAUSE; is 9") as exc:
        validate.on_failure(request_type(on_failure=9))
    assert fields_of(exc) == ["on_failure"]
