"""Security: certificates and tokens, read again when their files change."""
