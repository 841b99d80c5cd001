"""Benchmark of the service beside echo servers, Arrow Flight and a naive gRPC service."""
