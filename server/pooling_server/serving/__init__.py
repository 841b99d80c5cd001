"""The gRPC service: handlers, streams, admission control, limits, health."""
