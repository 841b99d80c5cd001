"""Calls of a client: checked, encoded as requests, and their results decoded from replies."""
