"""What has to be true of the machine: each refusal is one sentence that says what to do."""

import dataclasses
from pathlib import Path

import pytest

from atelocal import preflight
from atelocal.config import Config, RefusedError
from atelocal.preflight import Machine

GOOD = Machine("Linux", "6.1.0-18-amd64", "x86_64", 0, (1 << 41) - 1)
NET_ADMIN = 1 << 12
SYS_ADMIN = 1 << 21


def test_a_debian_machine_with_root_is_fine() -> None:
    preflight.check_machine(GOOD, network=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"system": "Darwin"}, "need Linux"),
        ({"machine": "riscv64"}, "need Linux on x86_64 or aarch64"),
        ({"uid": 1000}, "run it with sudo"),
        ({"release": "5.10.0"}, "boot one of version 5.16 or newer"),
        ({"release": "unknown"}, "kernel unknown is not supported"),
        ({"capabilities": GOOD.capabilities & ~NET_ADMIN}, "--privileged"),
        ({"capabilities": 0}, "--privileged"),
    ],
)
def test_what_cannot_run_sandboxes_is_refused(change: dict[str, object], said: str) -> None:
    machine = dataclasses.replace(GOOD, **change)  # type: ignore[arg-type]  # as parametrized
    with pytest.raises(RefusedError, match=said) as caught:
        preflight.check_machine(machine, network=True)
    assert "\n" not in str(caught.value)


def test_without_networks_the_right_to_make_them_is_not_needed() -> None:
    machine = dataclasses.replace(GOOD, capabilities=SYS_ADMIN)
    preflight.check_machine(machine, network=False)


@pytest.mark.parametrize("missing", ["ip", "nft"])
def test_a_missing_tool_names_its_package(tmp_path: Path, missing: str) -> None:
    for tool in {"ip", "nft"} - {missing}:
        (tmp_path / tool).write_text("#!/bin/sh\n")
        (tmp_path / tool).chmod(0o755)
    package = {"ip": "iproute2", "nft": "nftables"}[missing]
    with pytest.raises(RefusedError, match=f"install the package {package}"):
        preflight.check_tools({"PATH": str(tmp_path)})


@pytest.mark.parametrize("workers", [0, -1, 1001])
def test_a_number_of_workers_that_cannot_be(tmp_path: Path, workers: int) -> None:
    with pytest.raises(RefusedError, match="1 to 1000"):
        preflight.check_config(Config(tmp_path, workers))


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ("10.0.0.0/33", "neither an IPv4 network"),
        ("x", "nor none"),
        ("10.0.0.0/31", "workers need"),
    ],
)
def test_a_network_that_cannot_be(tmp_path: Path, network: str, said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        preflight.check_config(Config(tmp_path, 2, network=network))
    preflight.check_config(Config(tmp_path, 2, network="10.0.0.0/29"))
    preflight.check_config(Config(tmp_path, 2, network="none"))


def test_a_folder_whose_sockets_would_not_fit(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="bytes too long"):
        preflight.check_config(Config(tmp_path / ("x" * 90), 1))


@pytest.mark.parametrize(
    ("listen", "said"),
    [
        ("0.0.0.0:8080", "loopback addresses only"),
        ("192.0.2.1:8080", "loopback addresses only"),
        ("127.0.0.1", "neither unix:PATH nor HOST:PORT"),
        ("127.0.0.1:0", "name a port"),
    ],
)
def test_where_plaintext_may_not_listen(tmp_path: Path, listen: str, said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        preflight.check_config(Config(tmp_path, 1, listen))
    preflight.check_config(Config(tmp_path, 1, "127.0.0.1:8080"))


def test_failpoints_that_there_are_not() -> None:
    """Each part would refuse them too, but only in its log."""
    preflight.check_failpoints({})
    preflight.check_failpoints({"ATE_FAILPOINTS": "ateom.runtime.boot=1*kill"})
    with pytest.raises(RefusedError, match=r"^ATE_FAILPOINTS: there is no failpoint "):
        preflight.check_failpoints({"ATE_FAILPOINTS": "ateom.runtime.bot=1*kill"})
