"""What every script of the workflow does first."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).parents[1] / "workflow" / "scripts"
SCRIPT = """
from types import SimpleNamespace

from prologue import begin

begin(SimpleNamespace(threads=1, log=["log"]))
import jax

print(jax.jit(lambda x: jax.numpy.sin(x) @ x)(jax.numpy.ones((9, 9))).sum())
"""


def compiled(folder: Path) -> set[str]:
    """The programs in a folder after a script has compiled its own there, or found them."""
    environment = os.environ | {
        "PYTHONPATH": str(SCRIPTS),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    subprocess.run([sys.executable, "-c", SCRIPT], cwd=folder, env=environment, check=True)
    return {path.name for path in folder.glob(".cache/jax/*/*-cache")}


def test_a_folder_that_was_copied_finds_its_compiled_programs(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    programs = compiled(tmp_path / "one")
    assert any("lambda" in name for name in programs)
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    assert compiled(tmp_path / "other") == programs
