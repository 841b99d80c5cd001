"""Streams of requests and replies that are resumed after a lost connection."""
