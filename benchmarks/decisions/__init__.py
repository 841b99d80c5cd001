"""Measurements behind single decisions; the number in a module name is that of its ADR."""
