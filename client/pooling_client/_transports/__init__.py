"""Transports to a server and the drivers that run the steps of a call over them."""
