"""Calls: the arguments of a forward or backward call, checked together."""
