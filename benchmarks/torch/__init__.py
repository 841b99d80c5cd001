"""Benchmark of `pooling_client.torch`: modules beside the client, the engine and PyTorch."""
