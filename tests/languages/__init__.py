"""Client libraries and examples in other languages, against a real server."""
