"""Streams of requests and replies, resumed after a lost connection."""
