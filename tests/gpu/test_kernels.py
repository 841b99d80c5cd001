"""Table of the CUDA kernels: complete, consistent with the sources, and unchanged."""

from __future__ import annotations

import hashlib
import re

import pytest

from pooling_engine.backends.cupy_backend.device.source import CUDA
from pooling_engine.backends.cupy_backend.planning.kernels import (
    KERNELS,
    all_kernels,
    kernel_name,
)

TEMPLATE = re.compile(r"template <([^{;]+)>\s*__global__ void (\w+)\(")


def test_every_template_is_in_the_table_with_its_file_and_parameters() -> None:
    found = {}
    for source in CUDA.glob("*.cu"):
        for parameters, name in TEMPLATE.findall(source.read_text()):
            names = [parameter.split()[-1] for parameter in parameters.split(",")]
            found[name] = source.name, " ".join(names)
    assert found == {name: (kernel.file, kernel.parameters) for name, kernel in KERNELS.items()}


def test_the_set_of_compiled_kernels_is_unchanged() -> None:
    """A new specialisation costs compile time on every GPU, so a change must be deliberate."""
    names = sorted(all_kernels())
    assert len(names) == len(set(names)) == 3613
    text = "\n".join(f"{file} {name}" for file, name in names)
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert digest == "5689bf20906078da803b62bcf3078c00631581eb21036b15ac9898c046823a75"


def test_a_name_has_the_arguments_in_the_order_of_the_template() -> None:
    row = {"V": 4, "PAD": 1, "STRIDE": 1, "K": 3}
    name = kernel_name("select_rows", I="u8", Order="Larger", IGNORES=True, E="float", **row)
    assert name == ("rows.cu", "select_rows<float, u8, Larger, true, 3, 1, 1, 4>")


@pytest.mark.parametrize("arguments", [{"E": "float"}, {"E": "float", "TEAM": 8, "V": 1}])
def test_missing_and_unknown_arguments_are_rejected(arguments: dict[str, str | int]) -> None:
    with pytest.raises(TypeError, match="sum_by_teams takes E TEAM"):
        kernel_name("sum_by_teams", **arguments)
