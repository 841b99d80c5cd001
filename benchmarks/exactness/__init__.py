"""Exactness of this engine beside PyTorch, ONNX Runtime, JAX and TensorFlow."""
