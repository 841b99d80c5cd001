"""Checks of the layers with the backend that `KERAS_BACKEND` names; `test_layers.py` runs them."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

import pooling_client.keras as remote
from tests.support.waiting import quiet_port

# With the padding "same" on one side only, Keras averages other elements on PyTorch than on JAX.
EVEN_ON_JAX = 6 if keras.backend.backend() == "jax" else 5
RANDOM = np.random.default_rng(0)


def normal(*shape: int) -> Any:
    return RANDOM.standard_normal(shape).astype("float32")


def gradient(layer: Any, x: Any, dy: Any) -> Any:
    """Return the gradient of the input, computed by the backend."""
    if keras.backend.backend() == "torch":
        import torch

        leaf = torch.tensor(x, requires_grad=True)
        layer(leaf).backward(torch.tensor(dy))
        assert leaf.grad is not None
        return leaf.grad.numpy()
    import jax

    return np.asarray(jax.vjp(layer, x)[1](jax.numpy.asarray(dy))[0])


def compare(ours: Any, theirs: Any, x: Any) -> None:
    """Compare output, gradient and symbolic shape with a layer of Keras."""
    expected = keras.ops.convert_to_numpy(theirs(x))
    output = keras.ops.convert_to_numpy(ours(x))
    np.testing.assert_allclose(output, expected, rtol=1e-6, atol=1e-6, err_msg=repr(ours))
    dy = normal(*expected.shape)
    np.testing.assert_allclose(
        gradient(ours, x, dy), gradient(theirs, x, dy), rtol=1e-5, atol=1e-6, err_msg=repr(ours)
    )
    assert ours(keras.Input(x.shape[1:])).shape == theirs(keras.Input(x.shape[1:])).shape


ROWS = (
    (1, "valid", "channels_first"),
    (2, "same", "channels_last"),
    (3, "valid", "channels_last"),
)


def check_layers() -> None:
    for name, (rank, padding, layout) in itertools.product(("MaxPooling", "AveragePooling"), ROWS):
        sizes = (7, EVEN_ON_JAX, 5)[:rank]
        x = normal(2, *sizes, 3) if layout == "channels_last" else normal(2, 3, *sizes)
        both = [getattr(module, f"{name}{rank}D") for module in (remote, keras.layers)]
        options: Any = {"strides": 2, "padding": padding, "data_format": layout}
        compare(*[layer(3, **options) for layer in both], x)


def check_global_layers() -> None:
    names = ("GlobalMaxPooling", "GlobalAveragePooling")
    rows = ((1, True), (2, False))
    for name, (rank, keepdims) in itertools.product(names, rows):
        layout = "channels_first" if keepdims else "channels_last"
        both = [getattr(module, f"{name}{rank}D") for module in (remote, keras.layers)]
        options = {"keepdims": keepdims, "data_format": layout}
        compare(*[layer(**options) for layer in both], normal(2, *(3, 4, 5)[:rank], 3))


def check_min() -> None:
    x = normal(2, 6, 5, 3)
    for ours, theirs in (
        (remote.MinPooling2D(2, padding="same"), remote.MaxPooling2D(2, padding="same")),
        (remote.GlobalMinPooling2D(), remote.GlobalMaxPooling2D()),
    ):
        low, high = (keras.ops.convert_to_numpy(y) for y in (ours(x), theirs(-x)))
        assert np.array_equal(low, -high)


def check_mask() -> None:
    x, mask = normal(2, 5, 3), np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], bool)
    ours, theirs = (m.GlobalAveragePooling1D() for m in (remote, keras.layers))
    pairs = [keras.ops.convert_to_numpy(layer(x, mask=mask)) for layer in (ours, theirs)]
    assert np.array_equal(*pairs)


def check_element_types() -> None:
    for dtype in ("float16", "bfloat16"):
        layer = remote.MaxPooling2D(2, dtype=dtype)
        assert keras.backend.standardize_dtype(layer(normal(1, 4, 4, 1)).dtype) == dtype


def network(module: Any) -> Any:
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            module.MaxPooling2D(2),
            keras.layers.Conv2D(4, 2, activation="relu"),
            module.GlobalAveragePooling2D(),
            keras.layers.Dense(2),
        ]
    )


def check_training() -> None:
    x, y = normal(32, 8, 8, 1), RANDOM.integers(0, 2, 32)
    losses = []
    for module in (remote, keras.layers):
        model = network(module)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.1), loss)
        history = model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        losses.append(history.history["loss"])
    assert losses[0][1] < losses[0][0]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def check_saving() -> None:
    layer = remote.AveragePooling2D(3, 2, "same", server="127.0.0.1:7", name="average")
    config = keras.layers.serialize(layer)
    copy = keras.layers.deserialize(config)
    assert isinstance(copy, remote.AveragePooling2D)
    assert isinstance(copy, keras.layers.AveragePooling2D)
    assert copy.get_config() == layer.get_config()
    assert (copy.server, copy.strides, copy.name) == ("127.0.0.1:7", (2, 2), "average")
    model, x = network(remote), normal(2, 8, 8, 1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        loaded = keras.saving.load_model(path)
    assert isinstance(loaded.layers[1], remote.MaxPooling2D)
    assert np.array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))


def raised(function: Any) -> str:
    try:
        function()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError("no error")


def check_errors() -> None:
    x = normal(2, 4, 4, 1)
    assert "pool_size" in raised(lambda: remote.MaxPooling2D(0))
    assert "padding" in raised(lambda: remote.MaxPooling2D(2, padding="full")(x))
    assert "pool_size" in raised(lambda: remote.MaxPooling2D(5)(x))
    assert "ndim=4" in raised(lambda: remote.MaxPooling2D(2)(x[0]))
    text = raised(lambda: remote.MaxPooling2D(2, server=5))
    assert text == "TypeError: server must be a string or None, not int"
    target = f"127.0.0.1:{quiet_port()}"
    remote.connect(target, timeout=0.5)
    assert target in raised(lambda: remote.MaxPooling2D(2, server=target)(x))
    assert remote.MaxPooling2D(2)(x).shape == (2, 2, 2, 1)


def check_exports() -> None:
    for name in remote.__all__:
        assert getattr(remote, name).__doc__


def main() -> None:
    for check in [value for name, value in globals().items() if name.startswith("check_")]:
        check()
    print(f"checked with {keras.backend.backend()}")


if __name__ == "__main__":
    main()
