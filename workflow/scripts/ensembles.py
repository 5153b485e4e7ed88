"""Sizes of a weighted ensemble, in steps."""

from typing import Any


def in_steps(ensemble: dict[str, Any], learning_rate: float) -> dict[str, int]:
    """What `splitting.exit_rates` takes, from times in units of 1/η."""
    return {
        "particles": ensemble["particles"],
        "burn_in": round(ensemble["burn_in"] / learning_rate),
        "steps": max(round(ensemble["duration"] / learning_rate), 1),
        "repetitions": ensemble["repetitions"],
    }
