"""Parts that the layers for PyTorch, JAX and Keras share: clients by server, names in errors."""
