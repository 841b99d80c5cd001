"""The service beside echo servers, Arrow Flight and a naive gRPC service."""
