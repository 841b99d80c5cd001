"""Errors and corner cases beside PyTorch, ONNX Runtime, JAX and TensorFlow."""
