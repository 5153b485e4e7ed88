"""Long work that may be killed at any moment and goes on where it was, bit for bit."""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import xarray as xr

from sgd_escape import storage
from sgd_escape.errors import SgdEscapeError

State = TypeVar("State")


class Checkpoint:
    """Where a job keeps its state, under the SHA-256 of all that the state depends on.

    `identity` names it: configuration, digests of data and of code. Work of another identity has
    another file, so that nothing old is ever taken up. The file stands outside the outputs of a
    rule, which Snakemake deletes before it starts the rule again.
    """

    def __init__(self, folder: str | Path, identity: Mapping[str, Any]) -> None:
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self.path = Path(folder) / f"{digest}.nc"

    def load(self, like: State) -> tuple[int, State]:
        """How many parts of the work are done, and the state after them; 0 and `like` if none.

        A checkpoint that is damaged or of another shape counts as none, since the work can be
        done again.
        """
        leaves, structure = jax.tree.flatten(like)
        try:
            stored = storage.read(self.path, "checkpoint")
        except SgdEscapeError:
            return 0, like
        shapes = {"done": ()} | {
            f"leaf{index}": np.shape(leaf) for index, leaf in enumerate(leaves)
        }
        if {name: variable.shape for name, variable in stored.variables.items()} != shapes:
            return 0, like
        arrays = [stored[f"leaf{index}"].values for index in range(len(leaves))]
        return int(stored["done"]), jax.tree.unflatten(structure, arrays)

    def save(self, done: int, state: State) -> None:
        """Write the state whole or not at all. Raises `SgdEscapeError` if it cannot be written."""
        # Where the folder cannot be made, writing into it says so.
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {
            f"leaf{index}": xr.Variable(
                [f"leaf{index}_dim{axis}" for axis in range(np.ndim(leaf))], np.asarray(leaf)
            )
            for index, leaf in enumerate(jax.tree.leaves(state))
        }
        storage.write(xr.Dataset(arrays | {"done": done}), self.path, "checkpoint")

    def remove(self) -> None:
        """To be called once the results are written."""
        self.path.unlink(missing_ok=True)


def resumable(
    advance: Callable[[State, int], State],
    state: State,
    parts: int,
    checkpoint: Checkpoint,
    *,
    seconds: float = 60,
) -> State:
    """state = advance(state, part) for part in 0, ..., parts - 1, from the checkpoint onwards.

    `state` is a tree of arrays whose shapes stay the same. It is saved after a part when the last
    save is `seconds` ago. If `advance` depends on its arguments alone, a kill changes nothing.
    """
    done, state = checkpoint.load(state)
    saved = time.monotonic()
    for part in range(done, parts):
        state = advance(state, part)
        if time.monotonic() - saved >= seconds:
            checkpoint.save(part + 1, state)
            saved = time.monotonic()
    return state
