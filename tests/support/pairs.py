"""Compare a backend with the NumPy backend, bit for bit, over every form of a call."""

from __future__ import annotations

from pooling_engine import PoolingError, PoolSpec, backward, forward
from tests.support import cases, oracle


def assert_same_calls(backend, options, x, value, seed, disguise=lambda array: array):
    """Compare forward and backward calls; `x` is channels first, `value` makes the gradient."""
    spec = PoolSpec(**options)
    given = disguise(cases.to_layout(options, x))
    selects = options["mode"] in ("max", "min")
    plain = assert_same(backend, forward, given, spec)
    if plain is None:
        return
    indices = None
    if selects:
        indices = assert_same(backend, forward, given, spec, return_indices=True).indices
    dy = disguise(value(plain.output.shape, x.dtype, seed + 1))
    for residual in residuals_of(options, given, indices, disguise):
        assert_same(backend, backward, dy, spec, **residual)


def residuals_of(options, x, indices, disguise):
    if options["mode"] == "lp" or options.get("tie_policy", "first") != "first":
        return ({"input": x},)
    if indices is None:
        return ({"input_shape": x.shape},)
    return ({"input": x}, {"input_shape": x.shape, "indices": disguise(indices)})


def assert_same(backend, call, *arguments, **options):
    """Return the backend's result after comparing it with NumPy's; None if both raise."""
    ours, theirs = (
        outcome(call, *arguments, backend=name, **options) for name in (backend, "numpy")
    )
    if isinstance(theirs, PoolingError):
        assert type(ours) is type(theirs)
        assert (ours.field, str(ours)) == (theirs.field, str(theirs))
        return None
    pairs = ((ours, theirs),) if call is backward else zip(ours, theirs, strict=True)
    for one, other in pairs:
        assert (one is None) == (other is None)
        if one is not None:
            oracle.assert_same_bits(one, other)
    return ours


def outcome(call, *arguments, **options):
    try:
        return call(*arguments, **options)
    except PoolingError as error:
        return error
