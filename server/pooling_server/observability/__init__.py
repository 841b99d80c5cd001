"""Observability: metrics and traces."""
