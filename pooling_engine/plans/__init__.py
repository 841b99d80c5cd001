"""Plans: a spec resolved to integers for one shape and element type."""
