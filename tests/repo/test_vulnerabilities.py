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


KNOWN = [
    Vulnerability("grpcio", "1.53.2", "https://nvd.nist.gov/vuln/detail/CVE-2023-4785"),
    Vulnerability("grpcio", "1.65.4", "https://nvd.nist.gov/vuln/detail/CVE-2024-7246"),
    Vulnerability("grpcio", "1.66.2", "https://nvd.nist.gov/vuln/detail/CVE-2024-11407"),
    Vulnerability("numpy", "1.22.0", "https://nvd.nist.gov/vuln/detail/CVE-2021-34141"),
    Vulnerability("pillow", "10.0.1", "https://nvd.nist.gov/vuln/detail/CVE-2023-4863"),
    Vulnerability("pillow", "10.2.0", "https://nvd.nist.gov/vuln/detail/CVE-2023-50447"),
    Vulnerability("pillow", "10.3.0", "https://nvd.nist.gov/vuln/detail/CVE-2024-28219"),
    Vulnerability("protobuf", "3.18.3", "https://nvd.nist.gov/vuln/detail/CVE-2022-1941"),
    Vulnerability("protobuf", "5.29.5", "https://nvd.nist.gov/vuln/detail/CVE-2025-4565"),
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
