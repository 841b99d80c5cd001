"""Measurements behind single decisions; the number names the ADR in `docs/adr`."""
