"""Tensor bytes inside messages: encoding, and parsing without copies."""
