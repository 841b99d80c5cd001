"""Pages in a headless browser."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_LIMIT_S = 50


def dom_of(page: Path) -> str:
    """Return the document after the scripts of a page have run, with no network to reach."""
    browser = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if browser is None:
        raise AssertionError("chromium is missing; run scripts/debian_packages.sh chromium")
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            [
                browser,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--host-resolver-rules=MAP * ~NOTFOUND",
                f"--user-data-dir={profile}",
                "--virtual-time-budget=5000",
                "--window-size=390,2000",
                "--dump-dom",
                page.resolve().as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=True,
        )
    return done.stdout
