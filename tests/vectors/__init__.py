"""Test vectors: requests and their exact replies, for every client, protocol and language."""
