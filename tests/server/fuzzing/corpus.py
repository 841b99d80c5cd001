"""Committed cases of the fuzzer of whole calls: its seeds, which `test_corpus` replays.

python -m tests.server.fuzzing.corpus build/fuzz-calls  # replace them by those in a folder
"""

from __future__ import annotations

import hashlib
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

PATH = Path(__file__).with_name("corpus.zip")


def read() -> dict[str, bytes]:
    """Return the cases by name."""
    with zipfile.ZipFile(PATH) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(cases: Iterable[bytes]) -> None:
    """Replace the cases; equal cases give equal bytes of the file."""
    named = {hashlib.sha256(case).hexdigest()[:16]: case for case in cases}
    with zipfile.ZipFile(PATH, "w") as archive:
        for name, case in sorted(named.items()):
            archive.writestr(zipfile.ZipInfo(name), case, zipfile.ZIP_DEFLATED)


if __name__ == "__main__":
    write(path.read_bytes() for path in Path(sys.argv[1]).iterdir())
