"""Source text of the CUDA kernels in `cuda/`, each with the headers that it includes."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

KERNELS = Path(__file__).parents[1] / "cuda"
FILES = (
    "forward.cu",
    "backward.cu",
    "integers.cu",
    "norm_teams.cu",
    "norms.cu",
    "positions.cu",
    "rows.cu",
    "square_rows.cu",
    "teams.cu",
    "ties.cu",
    "tie_rows.cu",
    "whole.cu",
)

_INCLUDE = re.compile(r'^#include "(.+)"\n', re.MULTILINE)


@cache
def source_of(file: str) -> str:
    """One file, its includes in place: what is compiled."""
    seen: set[str] = set()

    def text_of(name: str) -> str:
        if name in seen:
            return ""
        seen.add(name)
        text = (KERNELS / name).read_text().replace("#pragma once\n", "")
        return _INCLUDE.sub(lambda include: text_of(include[1]), text)

    return text_of(file)
