"""Estimates as the variables of a file."""

from sgd_escape.estimation import Estimate


def bounded(name: str, estimate: Estimate, dims: tuple[str, ...] = ()) -> dict[str, tuple]:
    """A value and its interval as the three variables name, name_low and name_high."""
    return {
        f"{name}{part}": (dims, value)
        for part, value in zip(["", "_low", "_high"], estimate, strict=True)
    }
