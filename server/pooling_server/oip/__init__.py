"""Open Inference Protocol v2: its requests become the same calls as those of `pooling.v1`.

`docs/open-inference-protocol.md` lists models and parameters.
"""
