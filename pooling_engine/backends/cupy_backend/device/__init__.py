"""Access to the GPU: kernel loading, memory, streams, faults."""
