"""Specs: `PoolSpec` encoded and decoded."""

from __future__ import annotations

import numpy as np
import pytest

from pooling_engine import NanPolicy, PoolSpec, TiePolicy
from pooling_wire.messages.specs import decode_spec, encode_spec
from pooling_wire.v1 import pooling_pb2 as pb

SPECS = {
    "max": PoolSpec("max", 3, 2, 1),
    "min, different axes": PoolSpec("min", (3, 2), (1, 2), ((1, 0), (0, 1)), (2, 1)),
    "ceil mode": PoolSpec("sum", 3, 2, 1, ceil_mode=True),
    "named padding": PoolSpec("average", 3, 2, "same_lower"),
    "valid padding": PoolSpec("average", 3, 2, "valid"),
    "divisor": PoolSpec("average", 3, divisor_override=-2.5),
    "exclude padding": PoolSpec("average", 3, padding=1, count_include_pad=False),
    "p": PoolSpec("lp", 3, norm_p=3.5),
    "p infinite": PoolSpec("lp", 3, norm_p=np.inf),
    "channels last": PoolSpec("max", 3, layout="channels_last"),
    "policies": PoolSpec("max", 3, tie_policy=TiePolicy.SPLIT, nan_policy=NanPolicy.IGNORE),
    "adaptive": PoolSpec("average", adaptive_output=(7, 5)),
    "global": PoolSpec("max", global_window=True),
}


@pytest.mark.parametrize("name", SPECS)
def test_round_trip(name: str) -> None:
    spec = SPECS[name]
    message = encode_spec(spec, 2)
    again = decode_spec(pb.PoolSpec.FromString(message.SerializeToString()))
    assert encode_spec(again, 2) == message
    for option in ("mode", "ceil_mode", "count_include_pad", "divisor_override", "norm_p"):
        assert getattr(again, option) == getattr(spec, option)
    for option in ("layout", "tie_policy", "nan_policy", "adaptive_output", "global_window"):
        assert getattr(again, option) == getattr(spec, option)
    if spec.kernel is not None:
        assert again.windows(2) == spec.windows(2)
        assert isinstance(again.padding, str) == isinstance(spec.padding, str)


def test_defaults_of_the_message_are_those_of_the_spec() -> None:
    windows = pb.SlidingWindows(axes=[pb.Window(kernel=3)])
    decoded = decode_spec(pb.PoolSpec(mode=pb.MODE_MAX, sliding_windows=windows))
    assert decoded.windows(1) == PoolSpec("max", 3).windows(1)
    assert encode_spec(decoded, 1) == encode_spec(PoolSpec("max", 3), 1)
