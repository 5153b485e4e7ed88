"""Settings of every test: CPU, no silent broadcasting, shapes and types of signatures checked."""

import os

import jax
import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

os.environ.setdefault("JAX_PLATFORMS", "cpu")
jax.config.update("jax_platforms", os.environ["JAX_PLATFORMS"])
jax.config.update("jax_numpy_rank_promotion", "raise")
# The numeric tower: an int is a float, as PEP 484 and a configuration have it.
install_import_hook(
    "sgd_escape", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
)

# The same examples every time, and few of them; pytest --hypothesis-profile=long draws others.
settings.register_profile("fixed", derandomize=True, database=None, deadline=None, max_examples=50)
settings.register_profile("long", database=None, deadline=None, max_examples=5000)
settings.load_profile("fixed")


def pytest_addoption(parser):
    parser.addoption("--download", action="store_true", help="also fetch the larger data sets")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--download"):
        return
    for item in items:
        if item.get_closest_marker("download"):
            item.add_marker(pytest.mark.skip(reason="fetches a large data set: ask by --download"))
