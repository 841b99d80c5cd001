"""Calls of a client: encoding of requests and decoding of replies."""
