"""Splitting of a call into chunks that fit into messages."""
