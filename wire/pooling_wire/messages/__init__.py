"""Messages of `pooling.v1`: encoding and decoding of requests, replies and stream items."""
