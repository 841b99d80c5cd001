"""The engine beside PyTorch, ONNX Runtime and the memory bandwidth floor."""
