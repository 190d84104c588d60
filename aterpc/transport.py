"""What carries calls between services: gRPC over sockets, unless an embedder says other."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import grpc

from aterpc.channels import open_channel
from aterpc.server import MakeServer, grpc_server


@dataclass(frozen=True, slots=True)
class Transport:
    """Both ends of a service's calls; what an app gets can only reach apps that got the same.

    Attributes:
        open_channel: Connects to a target that a server was bound to.
        make_server: Makes a server that is not bound yet.
    """

    open_channel: Callable[[str], grpc.aio.Channel] = open_channel
    make_server: MakeServer = grpc_server


SOCKETS: Final = Transport()
