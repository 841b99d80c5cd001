"""Two checkouts side by side: whether a change made any call slower."""
