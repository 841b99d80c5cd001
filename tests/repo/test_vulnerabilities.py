"""Version floors in pyproject.toml exclude releases with known vulnerabilities."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]


class Vulnerability(NamedTuple):
    """A published vulnerability.

    Attributes:
        package: name on PyPI.
        fixed: first release without it, of the oldest series that was fixed and that we accept.
        source: where it is described.
    """

    package: str
    fixed: str
    source: str


# Each version was looked up: in the advisory ("fixed" or "patched"), or in the release notes, an
# issue or a pull request about the vulnerability. The addresses are for reference. Advisories for
# parts that Python packages do not contain (gRPC in Go, protobuf in Java) are not listed, nor is
# CVE-2026-24747 of PyTorch before 2.10: it needs `torch.load`, which only tests call, with files
# that they wrote.
NVD = "https://nvd.nist.gov/vuln/detail"
KNOWN = [
    Vulnerability("grpcio", "1.53.2", f"{NVD}/CVE-2023-4785"),  # many connections; grpc#34871
    Vulnerability("grpcio", "1.65.4", f"{NVD}/CVE-2024-7246"),  # HPACK tables behind proxies
    Vulnerability("grpcio", "1.66.2", f"{NVD}/CVE-2024-11407"),  # transmit zero-copy
    Vulnerability("numpy", "1.22.0", f"{NVD}/CVE-2021-34141"),  # comparison of types
    Vulnerability("numpy", "1.22.2", f"{NVD}/CVE-2021-41495"),  # numpy#19038, GHSA-5545-2q6w-2gh6
    Vulnerability("pillow", "10.0.1", f"{NVD}/CVE-2023-4863"),  # libwebp, Pillow#7626
    Vulnerability("pillow", "10.2.0", f"{NVD}/CVE-2023-50447"),  # Pillow#7655, in eval
    Vulnerability("pillow", "10.3.0", f"{NVD}/CVE-2024-28219"),  # _imagingcms
    Vulnerability("pillow", "12.1.1", f"{NVD}/CVE-2026-25990"),  # PSD, GHSA-cfh3-3jmp-rvhc
    Vulnerability("pillow", "12.2.0", f"{NVD}/CVE-2026-40192"),  # FITS, GHSA-whj4-6x5x-4v2j
    Vulnerability("protobuf", "3.18.3", f"{NVD}/CVE-2022-1941"),  # GHSA-8gq9-2x98-w8hf
    Vulnerability("protobuf", "5.29.5", f"{NVD}/CVE-2025-4565"),  # recursion, GHSA-8qvm-5x2c-j2w7
    Vulnerability("protobuf", "5.29.6", f"{NVD}/CVE-2026-0994"),  # JSON, GHSA-7gcm-g887-7qv7
    Vulnerability("torch", "2.6.0", f"{NVD}/CVE-2025-32434"),  # torch.load
]


def floors() -> dict[str, list[Version]]:
    """Return the lowest version that each requirement of the project accepts."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    found: dict[str, list[Version]] = {}
    for text in (*project["dependencies"], *(each for extra in extras for each in extra)):
        requirement = Requirement(text)
        for specifier in requirement.specifier:
            if specifier.operator in (">=", "=="):
                version = Version(specifier.version)
                found.setdefault(requirement.name.lower(), []).append(version)
    return found


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.source.rpartition("/")[2])
def test_no_floor_admits_a_known_vulnerability(known: Vulnerability) -> None:
    versions = floors()[known.package]
    assert min(versions) >= Version(known.fixed), known.source


def test_pinned_versions_are_not_below_the_floors() -> None:
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M))
    pinned = {name.lower().replace("_", "-"): Version(version) for name, version in pins.items()}
    for name, versions in floors().items():
        if name in pinned:
            assert pinned[name] >= max(versions), name
