"""Addresses as people write them."""

from pathlib import Path

import pytest

from ateerrors.errors import AteError
from ateerrors.reason import Reason
from aterpc import targets


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("127.0.0.1:0", "127.0.0.1"),
        ("localhost:65535", "localhost"),
        ("[::1]:80", "::1"),
        ("a.example:443", "a.example"),
    ],
)
def test_host_of(target: str, host: str) -> None:
    assert targets.host_of(target) == host


@pytest.mark.parametrize(
    "target", ["", ":", "h", "h:", ":1", "h:-1", "h:65536", "h:\u0661", "h:1 "]
)
def test_what_is_no_address(target: str) -> None:
    with pytest.raises(AteError, match="neither unix:PATH nor HOST:PORT") as caught:
        targets.host_of(target)
    assert caught.value.reason is Reason.INVALID_ARGUMENT


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_loopback(host: str) -> None:
    assert targets.is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["", "0.0.0.0", "::", "10.0.0.1", "localhost.example", "127.0.0.1.example", "198.18.0.1"],
)
def test_not_loopback(host: str) -> None:
    assert not targets.is_loopback(host)


@pytest.mark.parametrize("path", ["/a/b.sock", "/a%20b", "/a#b?c", "rel/b.sock", "/\u00e4"])
def test_socket_path_comes_back(path: str) -> None:
    assert targets.socket_path(f"unix:{path}") == Path(path)


def test_a_host_is_no_socket() -> None:
    assert targets.socket_path("127.0.0.1:80") is None


def test_grpc_reads_the_path_as_it_is() -> None:
    assert targets.grpc_target("unix:/a%2Fb#c?d") == "unix:/a%252Fb%23c%3Fd"
    assert targets.grpc_target("127.0.0.1:80") == "127.0.0.1:80"
