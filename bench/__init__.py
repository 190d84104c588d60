"""Benchmarks: they print figures and assert nothing."""

import os

# gRPC says a line at each process that is started beside its threads.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
