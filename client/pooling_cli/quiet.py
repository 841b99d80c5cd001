"""Switch gRPC's log off, which would surround our one-line errors. Import this before grpc."""

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")
