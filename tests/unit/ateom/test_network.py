"""What a network is planned to be."""

from pathlib import Path

import pytest

from ateom.netdev import Names, NetworkError, mark_of
from ateom.network import HostNetwork, NullNetwork


@pytest.mark.parametrize("cidr", ["", "198.18.0.1/24", "fd00::/64", "everything"])
def test_something_else_than_a_network_is_refused(cidr: str) -> None:
    with pytest.raises(NetworkError, match="--network"):
        HostNetwork(Path("/s"), 1, cidr)


def test_a_network_without_room_is_refused() -> None:
    assert len(HostNetwork(Path("/s"), 5, "198.18.0.0/29").places) == 5
    with pytest.raises(NetworkError, match="no room for 6 slots"):
        HostNetwork(Path("/s"), 6, "198.18.0.0/29")


def test_every_slot_has_its_own_address_and_namespace() -> None:
    places = HostNetwork(Path("/s"), 200, "198.18.7.0/24").places
    assert places[0].address == "198.18.7.2"
    assert len({place.address for place in places}) == 200
    assert len({place.netns for place in places}) == 200


def test_names_tell_installations_apart_and_fit_the_kernel(tmp_path: Path) -> None:
    names = [Names.of(path, 999) for path in (tmp_path / "a", tmp_path / "b")]
    assert names[0].veth != names[1].veth
    assert all(len(name.veth) <= 15 for name in names)


def test_an_installation_is_the_same_by_whatever_path(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    assert mark_of(tmp_path / "link") == mark_of(tmp_path)


def test_the_null_network_gives_loopback_addresses_of_the_installation(tmp_path: Path) -> None:
    one, other = (NullNetwork(tmp_path / name, 3).places for name in "ab")
    addresses = [place.address for place in (*one, *other)]
    assert len(set(addresses)) == 6
    assert all(address.startswith("127.") and address > "127.1" for address in addresses)
    assert all(place.netns is None for place in one)
    assert one[0].annotations == {"dev.ate.slot-address": one[0].address}
