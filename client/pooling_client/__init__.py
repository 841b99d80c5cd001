"""The clients of a pooling server; local and remote differ in one word.

from pooling_client import PoolingClient, PoolSpec

with PoolingClient("127.0.0.1:50051") as client:
    result = client.forward(x, PoolSpec("max", kernel=3, stride=2), return_indices=True)
"""

from pooling_client._async import AsyncPoolingClient
from pooling_client._sync import PoolingClient
from pooling_engine import PoolSpec
from pooling_wire import BackwardCall, ForwardCall

__all__ = ["AsyncPoolingClient", "BackwardCall", "ForwardCall", "PoolSpec", "PoolingClient"]
