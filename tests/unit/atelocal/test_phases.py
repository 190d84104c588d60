"""The demo's table: the runtime's time apart from our own."""

from atelocal import phases
from atelocal.phases import Timed
from atepb import ateapi_pb2 as pb


def timed(title: str, elapsed_us: int, **named: int) -> Timed:
    told = [pb.Phase(name=n.replace("_", ".", 1), elapsed_us=us) for n, us in named.items()]
    return Timed(title, elapsed_us, told)


def test_what_is_nobody_elses_is_our_own() -> None:
    it = timed("x", 10_000, runsc_run=4000, bytes_hash=1000, sandbox_ready=2000, store_begin=500)
    assert it.own_us == 3000


def test_times_that_overlap_never_make_our_own_negative() -> None:
    assert timed("x", 1000, runsc_run=4000).own_us == 0


def test_table_has_a_line_for_each_phase_and_the_sums() -> None:
    first = timed("resume", 9000, store_begin=1000, runsc_restore=5500)
    second = timed("suspend", 4000, store_begin=500, runsc_delete=2500)
    lines = [line.split() for line in phases.table([first, second]).splitlines()]
    assert lines[0] == ["phase", "(ms)", "resume", "suspend"]
    assert lines[1:4] == [
        ["store.begin", "1.0", "0.5"],
        ["runsc.restore", "5.5"],
        ["runsc.delete", "2.5"],
    ]
    assert ["in", "runsc", "5.5", "2.5"] in lines
    assert lines[-1] == ["in", "all", "9.0", "4.0"]
