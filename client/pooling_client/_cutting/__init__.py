"""Splitting of large calls into chunks that fit a message."""
