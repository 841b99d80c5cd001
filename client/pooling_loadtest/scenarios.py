"""Scenarios: mixes of calls in YAML, with a schema."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from pooling_loadtest.errors import MisuseError
from pooling_loadtest.settings import KindOfCall

_SHIPPED = resources.files("pooling_loadtest") / "shipped"
_SUFFIX = ".yaml"


def shipped() -> list[str]:
    """Return the names of the scenarios that ship with the package."""
    names = (entry.name for entry in _SHIPPED.iterdir())
    return sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))


def read_scenario(name: str) -> dict[str, Any]:
    """Return a scenario as its schema describes it.

    Args:
        name: name of a shipped scenario, or path of a YAML file.

    Raises:
        MisuseError: there is no such scenario, or it is invalid. The message names the key.
    """
    yaml, jsonschema = _libraries()
    if name in shipped():
        text = (_SHIPPED / f"{name}{_SUFFIX}").read_text()
    else:
        try:
            text = Path(name).read_text()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            names = ", ".join(shipped())
            raise MisuseError(
                f"scenario is {name!r}, which cannot be read ({reason}); "
                f"give a YAML file or one of {names}"
            ) from None
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        line = " ".join(str(error).split())
        raise MisuseError(f"scenario {name} is not YAML: {line}") from None
    schema = json.loads((_SHIPPED / "scenario.schema.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    fault = jsonschema.exceptions.best_match(validator.iter_errors(content))
    if fault is not None:
        raise MisuseError(f"scenario {name}: {_described(fault)}")
    return dict(content)


def kinds_of(scenario: dict[str, Any]) -> tuple[KindOfCall, ...]:
    """Return the kinds of calls of a scenario."""
    return tuple(
        KindOfCall(**{**kind, "shape": tuple(kind["shape"]), "spec": _spec(kind["spec"])})
        for kind in scenario["kinds"]
    )


def _spec(options: dict[str, Any]) -> dict[str, Any]:
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in options.items()
    }


def _described(fault: Any) -> str:
    """Return the text of an error of jsonschema, with the path of the key."""
    message = str(fault.message)
    if len(message) > 300:
        message = f"{message[:300]}..."
    known = ""
    if fault.validator == "additionalProperties":
        known = f"; known keys are {', '.join(fault.schema['properties'])}"
    return f"{fault.json_path}: {message}{known}"


def _libraries() -> tuple[Any, Any]:
    try:
        import jsonschema
        import yaml
    except ImportError as error:
        raise MisuseError(
            f"scenarios need {error.name}: pip install 'pooling-service[load]'"
        ) from None
    return yaml, jsonschema
