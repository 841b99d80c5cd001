"""Specs: the options of a pooling layer, checked and normalised."""
