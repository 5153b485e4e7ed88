"""How stochastic gradient descent leaves a minimum: the power-law escape rate and its tests."""

from importlib.metadata import version

from sgd_escape.errors import SgdEscapeError

__version__ = version("sgd-escape")
__all__ = ["SgdEscapeError", "__version__"]
