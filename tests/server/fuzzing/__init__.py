"""Fuzzing of whole calls: bytes of a request in, a valid reply or a documented rejection out."""
