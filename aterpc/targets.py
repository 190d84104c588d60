"""Where a server listens and a channel connects: `unix:PATH` or `HOST:PORT`."""

import ipaddress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from ateerrors.errors import AteError
from ateerrors.reason import Reason

UNIX: Final = "unix:"
# sun_path of struct sockaddr_un, less the closing NUL.
MAX_SOCKET_PATH_BYTES: Final = 107


def socket_path(target: str) -> Path | None:
    """Return the path of a `unix:PATH` target, None for any other."""
    return Path(target.removeprefix(UNIX)) if target.startswith(UNIX) else None


def grpc_target(target: str) -> str:
    """Return what gRPC takes: it reads `%`, `#` and `?` in a socket's path as parts of a URI."""
    path = socket_path(target)
    return target if path is None else UNIX + quote(bytes(path))


def host_of(target: str) -> str:
    """Return the host of a `HOST:PORT` target, without brackets.

    Raises:
        AteError: INVALID_ARGUMENT when it is not of that form.
    """
    host, colon, port = target.rpartition(":")
    if not (host and colon and port.isascii() and port.isdigit() and int(port) < 1 << 16):
        msg = (
            f"cannot use {target[:128]!r} as an address: it is neither unix:PATH nor HOST:PORT"
            " with a port of 0 to 65535"
        )
        raise AteError(Reason.INVALID_ARGUMENT, msg)
    return host.removeprefix("[").removesuffix("]")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
