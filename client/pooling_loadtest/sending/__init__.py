"""Senders: one class for each way to send calls; all report to a recorder."""
