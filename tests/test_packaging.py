"""One truth about dependencies and versions, told in several files."""

import re
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
LOCK = (ROOT / "requirements.lock").read_text()

# What conda must install besides: the interpreter, its installer and the npm client.
CONDA_TOOLS = {"python": PROJECT["requires-python"], "pip": "", "nodejs": ""}
ENVIRONMENTS = [
    {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": system}
    for python in ["3.11", "3.12", "3.13"]
    for system in ["linux", "darwin"]
]


def bounds(requirements):
    """Normalized name → version bounds."""
    parsed = map(Requirement, requirements)
    return {canonicalize_name(found.name): found.specifier for found in parsed}


def needed():
    return bounds(
        PROJECT["dependencies"]
        + PROJECT["optional-dependencies"]["test"]
        + PROJECT["optional-dependencies"]["slurm"]
        + PYPROJECT["build-system"]["requires"]
    )


def locked_entries():
    """Each requirement of the lock file with its hashes, on one line."""
    lines = [line for line in LOCK.splitlines() if not line.lstrip().startswith("#")]
    return "\n".join(lines).replace("\\\n", " ").splitlines()


def pins_of(name):
    pins = [Requirement(entry.partition(" --hash")[0]) for entry in locked_entries()]
    return [pin for pin in pins if canonicalize_name(pin.name) == name]


def test_conda_and_pyproject_ask_for_the_same_packages_with_the_same_bounds():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (from_pip,) = (entry for entry in environment["dependencies"] if isinstance(entry, dict))
    from_conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    tools = bounds(f"{name}{specifier}" for name, specifier in CONDA_TOOLS.items())
    assert bounds(from_conda + from_pip["pip"]) == needed() | tools


def test_conda_takes_packages_from_the_community_channels_only():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge", "bioconda", "nodefaults"]


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda e: " ".join(e.values()))
@pytest.mark.parametrize("name", needed())
def test_the_lock_has_one_pin_within_the_bounds_for_each_dependency(name, environment):
    applying = [
        pin for pin in pins_of(name) if pin.marker is None or pin.marker.evaluate(environment)
    ]
    assert len(applying) == 1
    (pinned,) = applying[0].specifier
    assert pinned.operator == "=="
    assert needed()[name].contains(pinned.version)


def test_every_entry_of_the_lock_is_pinned_and_hashed():
    for entry in locked_entries():
        assert re.match(r"[a-z0-9._-]+==[^ ]+ .*--hash=sha256:[0-9a-f]{64}", entry), entry


def test_the_lock_names_no_index_and_no_host():
    assert "://" not in LOCK
    assert not re.search(r"^\s*(-i|-f|--[a-z-]*(index|links|host)[a-z-]*)\b", LOCK, re.MULTILINE)


def test_the_version_is_the_same_in_the_package_the_citation_and_the_changelog():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    (newest, *_) = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert {PROJECT["version"], citation["version"], newest} == {version("sgd-escape")}


def test_make_without_a_usable_python_says_what_to_install_and_makes_nothing(tmp_path):
    for name in ["Makefile", "pyproject.toml", "requirements.lock"]:
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    made = subprocess.run(
        ["make", "test", "PYTHON=no-such-python"], cwd=tmp_path, capture_output=True, text=True
    )
    assert made.returncode != 0
    assert "error: needed is Python 3.11 or newer" in made.stderr
    assert "apt-get install python3-venv" in made.stderr
    assert "Traceback" not in made.stderr
    assert "Installing" not in made.stdout
    assert not (tmp_path / ".venv").exists()
