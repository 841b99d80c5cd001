"""Server information, encoded and decoded; values of newer servers are left out."""

from __future__ import annotations

import numpy as np

import pooling_wire
from pooling_engine import IndexFormat, Mode
from pooling_wire import BackendInfo, Limits, ServerInfo
from pooling_wire.v1 import pooling_pb2 as pb
from tests.wire.support import assert_same


def test_round_trip() -> None:
    dtypes = (np.dtype("<f4"), np.dtype("<f2"))
    backend = BackendInfo("numpy", ("CPU",), tuple(Mode), dtypes, (IndexFormat.WINDOW,))
    info = ServerInfo("1.2", (backend,), Limits(1, 2, 3, 4))
    data = pooling_wire.encode_server_info(info)
    again = pooling_wire.decode_server_info(data)
    assert_same(again, info)
    assert pooling_wire.encode_server_info(again) == data


def test_unknown_values_of_a_newer_server_are_left_out() -> None:
    backend = pb.Backend(
        modes=[pb.MODE_MAX, 99], element_types=[99, pb.ELEMENT_TYPE_INT8], index_formats=[99]
    )
    data = pb.GetServerInfoResponse(backends=[backend]).SerializeToString()
    (known,) = pooling_wire.decode_server_info(data).backends
    assert known.modes == (Mode.MAX,)
    assert known.dtypes == (np.dtype("int8"),)
    assert known.index_formats == ()
