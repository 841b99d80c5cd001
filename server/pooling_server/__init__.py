"""The gRPC server: `python -m pooling_server`, or `pooling serve`."""

from pooling_server.app import PoolingServer
from pooling_server.config import ServerConfig

__all__ = ["PoolingServer", "ServerConfig"]
