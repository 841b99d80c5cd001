"""Layers with the arguments and defaults of `keras.layers`, computed on a server.

Each layer is a subclass of the layer of Keras with the same arguments, and has one more, by
keyword: `server`, the target of the server (``HOST:PORT``, ``unix:/PATH``). Without it, the
variable ``POOLING_TARGET`` names the server, or else it is ``127.0.0.1:50051``.
Averages with the padding "same" do not count padding, as in Keras.

Raises:
    ValueError: an argument is invalid, or does not fit the tensor.
    RuntimeError: the backend of Keras is neither PyTorch nor JAX.
    PoolingError: the server cannot answer; on the backend JAX, see `pooling_client.jax`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import keras

from pooling_client._training.clients import check_server
from pooling_client.keras._backends import Layer, check_backend, pool

_registered = keras.saving.register_keras_serializable(package="pooling_client")


class _Remote:
    """Layer with a server. A subclass of this and of a layer of Keras."""

    mode: ClassVar[str]
    data_format: str

    def __init__(self, *arguments: Any, server: str | None = None, **options: Any) -> None:
        check_backend()
        check_server(server)
        super().__init__(*arguments, **options)
        self.server = server

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the layer."""
        config: dict[str, Any] = super().get_config()  # type: ignore[misc]
        return config | {"server": self.server}


class _Pooling(_Remote):
    """Layer with sliding windows."""

    pool_size: tuple[int, ...]
    strides: tuple[int, ...]
    padding: str

    def call(self, inputs: Any) -> Any:
        """Return the pooled tensor."""
        layer = Layer(
            self.mode,
            self.pool_size,
            self.strides,
            self.padding.lower(),
            self.data_format,
            self.server,
        )
        return pool(inputs, layer)


class _GlobalPooling(_Remote):
    """Layer with one window over all spatial axes."""

    keepdims: bool

    def call(self, inputs: Any) -> Any:
        """Return the pooled tensor."""
        shape = tuple(inputs.shape)
        is_last = self.data_format == "channels_last"
        sizes = shape[1:-1] if is_last else shape[2:]
        layer = Layer(self.mode, sizes, sizes, "valid", self.data_format, self.server)
        pooled = pool(inputs, layer)
        if self.keepdims:
            return pooled
        return pooled.reshape(shape[0], shape[-1] if is_last else shape[1])


@_registered
class MaxPooling1D(_Pooling, keras.layers.MaxPooling1D):
    """Largest element of each window, over one spatial axis."""

    mode = "max"


@_registered
class MaxPooling2D(_Pooling, keras.layers.MaxPooling2D):
    """Largest element of each window, over two spatial axes."""

    mode = "max"


@_registered
class MaxPooling3D(_Pooling, keras.layers.MaxPooling3D):
    """Largest element of each window, over three spatial axes."""

    mode = "max"


@_registered
class MinPooling1D(_Pooling, keras.layers.MaxPooling1D):
    """Smallest element of each window, over one spatial axis."""

    mode = "min"


@_registered
class MinPooling2D(_Pooling, keras.layers.MaxPooling2D):
    """Smallest element of each window, over two spatial axes."""

    mode = "min"


@_registered
class MinPooling3D(_Pooling, keras.layers.MaxPooling3D):
    """Smallest element of each window, over three spatial axes."""

    mode = "min"


@_registered
class AveragePooling1D(_Pooling, keras.layers.AveragePooling1D):
    """Average of each window, over one spatial axis."""

    mode = "avg"


@_registered
class AveragePooling2D(_Pooling, keras.layers.AveragePooling2D):
    """Average of each window, over two spatial axes."""

    mode = "avg"


@_registered
class AveragePooling3D(_Pooling, keras.layers.AveragePooling3D):
    """Average of each window, over three spatial axes."""

    mode = "avg"


@_registered
class GlobalMaxPooling1D(_GlobalPooling, keras.layers.GlobalMaxPooling1D):
    """Largest element of each channel, over one spatial axis."""

    mode = "max"


@_registered
class GlobalMaxPooling2D(_GlobalPooling, keras.layers.GlobalMaxPooling2D):
    """Largest element of each channel, over two spatial axes."""

    mode = "max"


@_registered
class GlobalMaxPooling3D(_GlobalPooling, keras.layers.GlobalMaxPooling3D):
    """Largest element of each channel, over three spatial axes."""

    mode = "max"


@_registered
class GlobalMinPooling1D(_GlobalPooling, keras.layers.GlobalMaxPooling1D):
    """Smallest element of each channel, over one spatial axis."""

    mode = "min"


@_registered
class GlobalMinPooling2D(_GlobalPooling, keras.layers.GlobalMaxPooling2D):
    """Smallest element of each channel, over two spatial axes."""

    mode = "min"


@_registered
class GlobalMinPooling3D(_GlobalPooling, keras.layers.GlobalMaxPooling3D):
    """Smallest element of each channel, over three spatial axes."""

    mode = "min"


@_registered
class GlobalAveragePooling1D(_GlobalPooling, keras.layers.GlobalAveragePooling1D):
    """Average of each channel, over one spatial axis."""

    mode = "avg"

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """Return the pooled tensor. With a mask, Keras computes it in this process."""
        if mask is not None:
            return keras.layers.GlobalAveragePooling1D.call(self, inputs, mask=mask)
        return super().call(inputs)


@_registered
class GlobalAveragePooling2D(_GlobalPooling, keras.layers.GlobalAveragePooling2D):
    """Average of each channel, over two spatial axes."""

    mode = "avg"


@_registered
class GlobalAveragePooling3D(_GlobalPooling, keras.layers.GlobalAveragePooling3D):
    """Average of each channel, over three spatial axes."""

    mode = "avg"
