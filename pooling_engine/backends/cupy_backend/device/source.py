"""Source text of the CUDA kernels in `cuda/`, with their headers inlined."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

CUDA = Path(__file__).parents[1] / "cuda"
_INCLUDE = re.compile(r'^#include "(.+)"\n', re.MULTILINE)


@cache
def source_of(file: str) -> str:
    """Return a source file with each of its includes inlined once."""
    seen: set[str] = set()

    def text_of(name: str) -> str:
        if name in seen:
            return ""
        seen.add(name)
        text = (CUDA / name).read_text().replace("#pragma once\n", "")
        return _INCLUDE.sub(lambda include: text_of(include[1]), text)

    return text_of(file)
