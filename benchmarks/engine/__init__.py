"""Benchmark of the engine beside PyTorch, ONNX Runtime and the memory-bandwidth floor."""
