"""The command `pooling demo`: a temporary server, a photograph, and a picture of the results."""
