"""gRPC server for pooling: `python -m pooling_server` or `pooling serve`."""

from pooling_server.config import ServerConfig
from pooling_server.serving.app import PoolingServer

__all__ = ["PoolingServer", "ServerConfig"]
