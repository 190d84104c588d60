"""What every service needs to speak gRPC: servers, channels, errors on the wire, log lines."""
