"""HTTP endpoint of the server: calls over HTTP/1.1, in the protocols of browsers and of curl."""
