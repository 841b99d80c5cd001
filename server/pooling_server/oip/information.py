"""Replies about the server and its models; the REST routes send the same content as JSON."""

from __future__ import annotations

from typing import Any

from pooling_server.oip.messages import message_class
from pooling_server.oip.models import MODELS, PLATFORM, VERSION, Model, TensorInfo, find_model
from pooling_server.oip.statistics import Statistics

SERVER_NAME = "pooling"
EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "statistics")


def server_metadata(version: str) -> Any:
    """Return the ServerMetadataResponse."""
    return message_class("ServerMetadataResponse")(
        name=SERVER_NAME, version=version, extensions=EXTENSIONS
    )


def model_ready(name: str, version: str, *, is_ready: bool) -> Any:
    """Return the ModelReadyResponse; a model is ready if it exists and the server is ready."""
    is_known = name in MODELS and version in ("", VERSION)
    return message_class("ModelReadyResponse")(ready=is_known and is_ready)


def model_metadata(model: Model) -> Any:
    """Return the ModelMetadataResponse.

    The datatypes are the most common ones; docs/open-inference-protocol.md lists all.
    """

    def tensor(info: TensorInfo) -> dict[str, Any]:
        return {"name": info.name, "datatype": info.datatype, "shape": [-1] * model.axes}

    return message_class("ModelMetadataResponse")(
        name=model.name,
        versions=[VERSION],
        platform=PLATFORM,
        inputs=[tensor(info) for info in model.inputs],
        outputs=[tensor(info) for info in model.outputs],
    )


def model_config(model: Model) -> Any:
    """Return the ModelConfig. Its shapes include the batch axis, so `max_batch_size` is 0."""

    def tensor(info: TensorInfo) -> dict[str, Any]:
        return {
            "name": info.name,
            "data_type": f"TYPE_{info.datatype}",
            "dims": [-1] * model.axes,
        }

    return message_class("ModelConfig")(
        name=model.name,
        platform=PLATFORM,
        backend=PLATFORM,
        input=[{**tensor(info), "optional": info.is_optional} for info in model.inputs],
        output=[tensor(info) for info in model.outputs],
    )


def model_statistics(statistics: Statistics, name: str, version: str) -> Any:
    """Return the ModelStatisticsResponse of a model; of all models if the name is empty.

    Raises:
        InvalidSpecError: there is no such model or version.
    """
    names = [find_model(name, version).name] if name else list(MODELS)
    reply = message_class("ModelStatisticsResponse")()
    for each, counts in statistics.of(names):
        entry = reply.model_stats.add(
            name=each,
            version=VERSION,
            last_inference=counts.last_ms,
            inference_count=counts.successes,
            execution_count=counts.successes,
        )
        stats = entry.inference_stats
        stats.success.count, stats.success.ns = counts.successes, counts.success_ns
        stats.fail.count, stats.fail.ns = counts.failures, counts.failure_ns
    return reply


def repository_index(*, is_ready: bool) -> Any:
    """Return the RepositoryIndexResponse."""
    state = "READY" if is_ready else "UNAVAILABLE"
    models = [{"name": name, "version": VERSION, "state": state} for name in MODELS]
    return message_class("RepositoryIndexResponse")(models=models)
