"""Access to the GPU: kernel compilation, memory, streams and errors."""
