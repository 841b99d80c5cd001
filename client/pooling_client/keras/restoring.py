"""`RestoreVariables`: the variables of a model as they were before a step that failed."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import keras


class RestoreVariables(keras.callbacks.Callback):
    """Callback and context manager that undoes the step of `fit` that raised an error.

    On the backend JAX, Keras donates the variables of a model to each step, so a step that fails
    leaves the model without weights. On PyTorch, it leaves the weights unchanged, but not the
    statistics of batch normalization or the state of dropout. This callback copies all variables
    of the model and of its optimizer before each step, and writes them back if the block fails:

        with RestoreVariables() as restore:
            model.fit(x, y, callbacks=[restore])
    """

    def __init__(self) -> None:
        super().__init__()
        self._copies: list[tuple[Any, Any]] = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Copy the variables."""
        model = self.model  # on the backend JAX, this gives the variables their current values
        variables = [*model.variables, *model.optimizer.variables]
        self._copies = [(variable, keras.ops.copy(variable.value)) for variable in variables]

    def on_train_end(self, logs: Any = None) -> None:
        """Release the copies."""
        self._copies = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            for variable, copy in self._copies:
                variable.assign(copy)
        self._copies = []
