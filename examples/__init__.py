"""Complete programs that use the service."""
