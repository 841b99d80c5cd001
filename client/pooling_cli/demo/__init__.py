"""The command `pooling demo`: a server, a photograph, and a picture of the results."""
