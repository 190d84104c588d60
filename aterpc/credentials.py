"""Where channels and servers take their credentials from: one place for every hop."""

from dataclasses import dataclass

import grpc


@dataclass(frozen=True, slots=True)
class Credentials:
    """Credentials of one process; None on both sides is plaintext.

    Plaintext is for unix sockets with owner-only rights and for the loopback address only; what
    binds anything else must refuse it (`aterpc.server.bind`).
    """

    server: grpc.ServerCredentials | None = None
    channel: grpc.ChannelCredentials | None = None


PLAINTEXT = Credentials()
