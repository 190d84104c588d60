"""What a text of failpoints means, and that one with a mistake is refused with a hint."""

import pytest

import atefail
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from atefail import CALL, STORE, SYSTEM, Kind
from atefail.terms import Do, Term, parse

KINDS = {"a.call": CALL, "a.store": STORE, "a.file": SYSTEM}


def kind_of(name: str) -> Kind:
    return KINDS[name]


@pytest.mark.parametrize(
    ("text", "plans"),
    [
        ("", {}),
        (" ; ", {}),
        ("a.call=error", {"a.call": (Term(Do.ERROR),)}),
        ("a.call=error(UNAVAILABLE)", {"a.call": (Term(Do.ERROR, error="UNAVAILABLE"),)}),
        ("a.call=error(STALE_EPOCH)", {"a.call": (Term(Do.ERROR, error="STALE_EPOCH"),)}),
        ("a.file=error(ENOSPC)", {"a.file": (Term(Do.ERROR, error="ENOSPC"),)}),
        ("a.store=lose-reply", {"a.store": (Term(Do.LOSE_REPLY),)}),
        (
            "a.call=1*off->2*delay(50)->kill",
            {"a.call": (Term(Do.OFF, 1), Term(Do.DELAY, 2, delay_s=0.05), Term(Do.KILL))},
        ),
        (
            " a.call:after = 1 * kill ; a.file=off; ",
            {"a.call:after": (Term(Do.KILL, 1),), "a.file": (Term(Do.OFF),)},
        ),
    ],
)
def test_text_is_read(text: str, plans: dict[str, tuple[Term, ...]]) -> None:
    assert parse(text, kind_of) == plans


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("a.call", "it must be NAME=TERM->TERM"),
        ("a.call=", "allowed are off, error, error(WHAT), delay(MS), kill, lose-reply"),
        ("a.call=fail", "allowed are off, error,"),
        ("a.call=1*off->", "allowed are off, error,"),
        ("a.call=0*kill", "a count is at least 1"),
        ("a.call=-1*kill", "allowed are off, error,"),
        ("a.call=delay", "must be delay(MS)"),
        ("a.call=delay(1.5)", "must be delay(MS)"),
        ("a.call=delay(9999999)", "up to 600000"),
        ("a.call=kill(9)", "kill takes nothing in brackets"),
        ("a.call=error(NO_SUCH)", "a reason of docs/errors.md or a gRPC status code"),
        ("a.call=error(OK)", "a reason of docs/errors.md or a gRPC status code"),
        ("a.call=error(ENOSPC)", "a reason of docs/errors.md or a gRPC status code"),
        ("a.file=error(UNAVAILABLE)", "an errno, as ENOSPC"),
        ("a.call=kill->off", "what follows 'kill' is never reached: say N*kill"),
        ("a.call:after=lose-reply", "leave out :after"),
        ("a.call=off;a.call=kill", "a.call is there twice"),
    ],
)
def test_mistake_is_refused_with_what_is_allowed(text: str, hint: str) -> None:
    with pytest.raises(AteError) as caught:
        parse(text, kind_of)
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert hint in caught.value.message


@atefail.effect("unit.terms.present")
def present() -> None: ...


def test_unknown_name_is_refused_and_similar_ones_are_named() -> None:
    """A typing error would else do nothing, and a test of it would prove nothing."""
    with pytest.raises(AteError) as caught:
        atefail.configure("unit.terms.presnt=kill")
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert "similar are unit.terms.present" in caught.value.message


def test_a_refused_text_changes_nothing() -> None:
    atefail.configure("unit.terms.present=error")
    with pytest.raises(AteError):
        atefail.configure("unit.terms.present=off;unit.terms.missing=off")
    with pytest.raises(AteError):
        present()
