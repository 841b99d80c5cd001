"""Transfers between host and GPU memory."""
