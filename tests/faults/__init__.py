"""Faults between real processes: servers that stop, freeze or restart, and clients that fork."""
