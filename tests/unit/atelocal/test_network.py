"""Which addresses an installation gets."""

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelocal import network
from atelocal.config import RefusedError

HOME = Path("/var/lib/ate")


def nets(*texts: str) -> list[ipaddress.IPv4Network]:
    return [ipaddress.IPv4Network(text) for text in texts]


def test_a_folder_keeps_its_network() -> None:
    assert network.pick(HOME, 3, []) == network.pick(HOME, 3, [])
    assert network.pick(HOME, 3, []) != network.pick(Path("/var/lib/other"), 3, [])


def test_one_that_is_in_use_is_passed_over() -> None:
    first = network.pick(HOME, 3, [])
    second = network.pick(HOME, 3, nets(first))
    host = str(ipaddress.IPv4Network(first)[2])
    assert second != first
    # A route to one of its addresses is enough.
    assert network.pick(HOME, 3, nets(host)) == second


@given(workers=st.integers(1, 1000))
def test_it_has_room_and_is_of_the_range(workers: int) -> None:
    found = ipaddress.IPv4Network(network.pick(HOME, workers, []))
    assert found.num_addresses >= workers + 3
    assert found.subnet_of(network.RANGE)


def test_none_left_says_what_to_do() -> None:
    with pytest.raises(RefusedError, match="--network"):
        network.pick(HOME, 3, nets("198.18.0.0/15"))
