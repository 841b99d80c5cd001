"""Models: one per mode, number of spatial axes and direction, and the tensors of each."""

from __future__ import annotations

from typing import NamedTuple

from pooling_engine import InvalidSpecError, Mode

VERSION = "1"
PLATFORM = "pooling"
_SELECTING = (Mode.MAX, Mode.MIN)


class TensorInfo(NamedTuple):
    """Name of a tensor, its most common datatype, and its optionality."""

    name: str
    datatype: str = "FP32"
    is_optional: bool = False


class Model(NamedTuple):
    """A model.

    Attributes:
        name: name, such as "max_pool2d_gradient".
        mode: mode of pooling.
        spatial_axes: number of spatial axes, 1 to 3; tensors have two more.
        is_gradient: True for the backward pass.
    """

    name: str
    mode: Mode
    spatial_axes: int
    is_gradient: bool

    @property
    def axes(self) -> int:
        """Number of axes of every tensor."""
        return self.spatial_axes + 2

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """Tensors of a request."""
        if not self.is_gradient:
            return (TensorInfo("input"),)
        gradient = TensorInfo("output_gradient")
        if self.mode is Mode.LP:
            return gradient, TensorInfo("input")
        if self.mode not in _SELECTING:
            return (gradient,)
        return gradient, TensorInfo("indices", "UINT8", True), TensorInfo("input", "FP32", True)

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """Tensors of a reply; "indices" is returned on request."""
        if self.is_gradient:
            return (TensorInfo("input_gradient"),)
        if self.mode not in _SELECTING:
            return (TensorInfo("output"),)
        return TensorInfo("output"), TensorInfo("indices", "UINT8", True)


MODELS = {
    model.name: model
    for mode in Mode
    for axes in (1, 2, 3)
    for model in (
        Model(f"{mode}_pool{axes}d", mode, axes, False),
        Model(f"{mode}_pool{axes}d_gradient", mode, axes, True),
    )
}


def find_model(name: str, version: str = "") -> Model:
    """Return a model.

    Raises:
        InvalidSpecError: there is no such model or version.
    """
    model = MODELS.get(name)
    if model is None:
        legal = ", ".join(f"{mode}_pool" for mode in Mode)
        raise InvalidSpecError(
            f"there is no model {name!r}; a model is one of {legal}, then 1d, 2d or 3d, and for "
            "gradients _gradient, such as max_pool2d_gradient",
            field="model_name",
        )
    if version not in ("", VERSION):
        raise InvalidSpecError(
            f"the model {name} has no version {version!r}; its only version is {VERSION!r}",
            field="model_version",
        )
    return model
