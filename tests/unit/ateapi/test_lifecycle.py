"""The edges between statuses, as promised."""

import pytest

from ateapi.lifecycle import CRASHABLE, DELETABLE, EDGES, Edge, Status, Verb, to_mermaid
from atepb import ateapi_pb2 as pb

S = Status


@pytest.mark.parametrize(
    ("verb", "begins_in", "through", "to"),
    [
        (Verb.RESUME, {S.SUSPENDED, S.PAUSED}, S.RESUMING, S.RUNNING),
        (Verb.SUSPEND, {S.RUNNING, S.PAUSED}, S.SUSPENDING, S.SUSPENDED),
        (Verb.PAUSE, {S.RUNNING}, S.PAUSING, S.PAUSED),
    ],
)
def test_edge(verb: Verb, begins_in: set[Status], through: Status, to: Status) -> None:
    edge = EDGES[verb]
    assert edge == Edge(frozenset(begins_in), through, to)


def test_every_verb_has_an_edge() -> None:
    assert set(EDGES) == set(Verb)


def test_statuses_are_the_wires() -> None:
    names = {f"STATUS_{status.name}": status.value for status in Status}
    assert dict(pb.Actor.Status.items()) == {"STATUS_UNSPECIFIED": 0, **names}


def test_exactly_what_a_verb_passes_through_is_transitional() -> None:
    """A status that is neither passed through nor at rest would be stuck for ever."""
    assert {s for s in Status if s.transitional} == {edge.through for edge in EDGES.values()}


def test_nothing_but_delete_leads_out_of_crashed() -> None:
    assert all(S.CRASHED not in edge.begins_in for edge in EDGES.values())
    assert S.CRASHED in DELETABLE


def test_an_actor_that_rests_in_a_snapshot_cannot_crash() -> None:
    assert {S.RUNNING, S.RESUMING, S.SUSPENDING, S.PAUSING} == CRASHABLE


def test_the_diagram_shows_every_edge_once() -> None:
    lines = to_mermaid().splitlines()
    assert lines[0] == "stateDiagram-v2"
    assert len(lines) == len(set(lines))
    for verb, edge in EDGES.items():
        for origin in edge.begins_in:
            assert f"    {origin.name} --> {edge.through.name}: {verb}" in lines
            assert f"    {edge.through.name} --> {origin.name}: undone" in lines
        assert f"    {edge.through.name} --> {edge.to.name}: done" in lines
    assert sum("--> CRASHED" in line for line in lines) == len(CRASHABLE)
