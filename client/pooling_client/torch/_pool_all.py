"""`PoolAll`: several pooling layers of one tensor, which is sent once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules import pooling

from pooling_client import NamedPadding, PoolingError, PoolSpec
from pooling_client._training.clients import check_server
from pooling_client.torch import _arguments, _bases
from pooling_client.torch._calling import batched, with_layout
from pooling_client.torch._errors import InvalidOptionError, torch_errors
from pooling_client.torch._op_of_all import forward_all

_OPTIONS = {
    "average": ("count_include_pad", "divisor_override"),
    "lp": ("norm_p",),
    "max": ("tie_policy", "nan_policy"),
    "min": ("tie_policy", "nan_policy"),
    "sum": (),
}
_RANKS = {"1d": 1, "2d": 2, "3d": 3}
_ADAPTIVE_MAX = (pooling._AdaptiveMaxPoolNd, _bases.AdaptiveMaxPool)
_ADAPTIVE_AVERAGE = (pooling._AdaptiveAvgPoolNd, _bases.AdaptiveAvgPool)


class PoolAll(torch.nn.Module):
    """Several pooling layers of one tensor, such as the max pooling of YOLO's SPP block.

    The input is sent once for all layers. Gradients are requested layer by layer and added.

    Args:
        layers: pooling modules of `torch.nn` or of this package, for the same number of axes, with
            a `return_indices` of False. Their `server` is ignored.
        server: target of the server, or None for the default.

    Raises:
        TypeError: an argument has the wrong type.
        UnsupportedError: this package has no layer with the same results.
        InvalidSpecError: a layer is not a pooling module, or its options are invalid.
    """

    def __init__(self, layers: Iterable[torch.nn.Module], *, server: str | None = None) -> None:
        super().__init__()
        check_server(server)
        self.layers = torch.nn.ModuleList(_modules(layers))
        if not len(self.layers):
            raise InvalidOptionError("layers is empty; it must have a layer", field="layers")
        self.server = server
        ranks = {_rank(layer) for layer in self.layers}
        if len(ranks) > 1:
            raise InvalidOptionError(
                f"layers pool along {sorted(ranks)} axes; all must pool along as many",
                field="layers",
            )
        self._rank = ranks.pop()
        self._arguments = [
            _arguments_of(layer, number, self._rank) for number, layer in enumerate(self.layers)
        ]

    def extra_repr(self) -> str:
        """Return the target for the representation of the module."""
        return f"server={self.server!r}"

    def forward(self, input: Tensor) -> list[Tensor]:  # noqa: A002
        """Return the output of each layer.

        Args:
            input: tensor of shape (N, C, D1..Dn) or (C, D1..Dn).
        """
        x, is_single = batched(
            input, self._rank, [options["mode"] for options, _ in self._arguments]
        )
        texts, sizes = [], []
        for options, own in self._arguments:
            if options["window"] == "adaptive":
                own = _arguments.adaptive_sizes(own, x, self._rank)
            texts.append(with_layout(options, x))
            sizes += own
        with_indices = x.requires_grad and torch.is_grad_enabled()
        text, target = "|".join(texts), check_server(self.server)
        outputs = forward_all(x, text, sizes, with_indices, target)[: len(texts)]
        return [output.squeeze(0) for output in outputs] if is_single else outputs


def _modules(layers: Iterable[torch.nn.Module]) -> list[torch.nn.Module]:
    try:
        modules = list(layers)
    except TypeError:
        name = type(layers).__name__
        raise TypeError(f"layers must be a list of modules, not {name}") from None
    for number, module in enumerate(modules):
        if not isinstance(module, torch.nn.Module):
            raise TypeError(f"layers[{number}] must be a module, not {type(module).__name__}")
    return modules


def _rank(layer: torch.nn.Module) -> int:
    names = (class_.__name__[-2:] for class_ in type(layer).__mro__)
    rank = next((_RANKS[name] for name in names if name in _RANKS), None)
    if rank is None:
        raise InvalidOptionError(
            f"layers has a {type(layer).__name__}; each must be a pooling module", field="layers"
        )
    return rank


def _arguments_of(layer: torch.nn.Module, number: int, rank: int) -> tuple[dict[str, Any], Any]:
    """Return options and sizes of a layer (`_layer`); for an adaptive one, its `output_size`."""
    try:
        return _options_and_sizes(layer, rank)
    except PoolingError as error:
        field = f"layers[{number}]"
        raise type(error)(f"{field}: {error}", field=f"{field}.{error.field}") from None


def _options_and_sizes(layer: torch.nn.Module, rank: int) -> tuple[dict[str, Any], Any]:
    if getattr(layer, "return_indices", False):
        raise InvalidOptionError(
            "return_indices is True; PoolAll returns outputs only", field="return_indices"
        )
    if isinstance(layer, (*_ADAPTIVE_MAX, *_ADAPTIVE_AVERAGE)):
        mode = "max" if isinstance(layer, _ADAPTIVE_MAX) else "average"
        return {"mode": mode, "window": "adaptive"}, layer.output_size
    with torch_errors():
        spec = PoolSpec.from_torch(layer)
    options = {"window": "sliding", "mode": str(spec.mode), "ceil_mode": spec.ceil_mode}
    for name in _OPTIONS[spec.mode]:
        if getattr(spec, name) is not None:
            options[name] = getattr(spec, name)
    if isinstance(spec.padding, NamedPadding):
        options["padding"] = str(spec.padding)
    sizes: list[int] = []
    for window in spec.windows(rank):
        sizes += [window.kernel, window.stride, window.dilation]
        sizes += [window.padding_before, window.padding_after]
    return options, sizes
