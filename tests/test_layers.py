import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "sgd_escape"

LAYERS = [
    {"errors"},
    {
        "barrier_theory",
        "escape_theory",
        "gaussian_kernel",
        "quasi_potential",
        "config",
        "config_files",
    },
    {"discrete_theory"},
    {"radial_theory"},
    {"networks", "losses", "batches", "landscapes"},
    {"training", "curvature", "gradient_noise"},
    {"chains"},
    {"first_passage", "langevin", "splitting"},
    {"estimation"},
    {"ladder"},
    {"decoupling"},
    {"alignment", "escape_paths", "outliers"},
    {"packages", "files"},
    {"sources"},
    {"storage", "datasets", "outcomes"},
    {"checkpoints"},
    {"noise_dynamics"},
    {"claims"},
    {"figure_style"},
    {
        "figures",
        "noise_figures",
        "laboratory_figures",
        "ladder_figures",
        "network_figures",
        "double_well_figures",
        "report",
    },
]
LEVEL = {module: level for level, layer in enumerate(LAYERS) for module in layer}
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")
WITHOUT_JAX = [
    "errors",
    "barrier_theory",
    "escape_theory",
    "gaussian_kernel",
    "discrete_theory",
    "radial_theory",
    "quasi_potential",
    "config",
    "config_files",
    "estimation",
    "ladder",
    "decoupling",
    "outliers",
    "packages",
    "files",
    "sources",
    "storage",
    "datasets",
    "outcomes",
    "claims",
    "report",
    "figure_style",
    "figures",
    "network_figures",
    "double_well_figures",
    "noise_figures",
    "laboratory_figures",
]


def imports_of(source: str) -> set[str]:
    """The modules of this package that a module's source imports."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports within the package are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    inside = {name.split(".")[1] for name in names if name.startswith("sgd_escape.")}
    # `from sgd_escape import SgdEscapeError` imports a name of the package, not a module.
    return inside & set(MODULES)


def test_imports_are_found_in_every_form() -> None:
    source = "import sgd_escape.losses\nfrom sgd_escape import chains, SgdEscapeError\n"
    source += "def f():\n    from sgd_escape.networks import Network\n    import numpy.linalg\n"
    assert imports_of(source) == {"losses", "chains", "networks"}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down_only(module: str) -> None:
    for imported in imports_of((PACKAGE / f"{module}.py").read_text(encoding="utf-8")):
        assert LEVEL[imported] < LEVEL[module], f"{module} imports {imported}"


@pytest.mark.parametrize("module", [m for m in WITHOUT_JAX if m in MODULES])
def test_a_module_without_simulation_does_not_import_jax(module: str) -> None:
    program = f"import sgd_escape.{module}, sys; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
