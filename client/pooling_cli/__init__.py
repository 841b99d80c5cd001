"""The command line program `pooling`."""
