from prologue import begin

begin(snakemake)

import jax
import numpy as np
import xarray as xr
from intervals import bounded
from network_files import has_zero_loss, read_network, read_parity

from sgd_escape import outcomes, storage
from sgd_escape.batches import SAMPLINGS, stream_key
from sgd_escape.chains import TrackedNetwork
from sgd_escape.escape_paths import Origin, Surroundings, departures, lowered_losses, surroundings
from sgd_escape.estimation import mean_over_runs
from sgd_escape.first_passage import first_passage, no_passage
from sgd_escape.langevin import states_after

params, study, seed = snakemake.params, snakemake.params.study, int(snakemake.wildcards.seed)
eta, batch_size, confidence = study["learning_rate"], study["batch_size"], params.confidence
exits, steps = np.asarray(study["exits"], float), np.asarray(study["steps"])
inputs, labels = read_parity(snakemake.input.data, params.n_samples)
start = read_network(snakemake.input.pretrained)
hessian = storage.read(snakemake.input.hessian, "hessian")
count = round(float(hessian["effective_dimension"]))
origin = Origin.at(start, inputs, labels[:, None], directions=params.directions, outliers=count)
chain = TrackedNetwork.from_network(start, inputs, labels, eta)
batches = SAMPLINGS[params.sampling](params.n_samples, batch_size)
key = stream_key(params.seed, seed, eta, batch_size)
initial_loss = float(chain.loss(chain.initial_state()))
runs, followed = np.arange(study["runs"]), np.arange(study["followed"])


def networks_after(some_runs, taken):
    """The networks of some runs after so many steps each."""
    networks = states_after(chain, batches, key, list(some_runs), taken).network
    return [jax.tree.map(lambda leaf, r=r: leaf[r], networks) for r in range(len(some_runs))]


def of_runs(networks, some_runs):
    """What the departures hold, by run."""
    found = departures(networks, origin)
    by_run = {name: ("run", getattr(found, name)) for name in ["loss", "length", "subspace_share"]}
    shares = {
        name: (("run", "direction"), getattr(found, name))
        for name in ["squared_share", "loss_share"]
    }
    means = {
        **bounded(
            "mean_squared_share", mean_over_runs(found.squared_share, confidence), ("direction",)
        ),
        **bounded("mean_loss_share", mean_over_runs(found.loss_share, confidence), ("direction",)),
        **bounded("mean_subspace_share", mean_over_runs(found.subspace_share, confidence)),
    }
    return xr.Dataset(by_run | shares | means, {"run": some_runs})


def around(when, found, seen):
    """Overlap and sharpness of the followed runs, and their means over those seen."""
    return {
        name: variable
        for what, values in zip(Surroundings._fields, found, strict=True)
        for name, variable in {
            f"{when}_{what}": ("followed", values),
            **bounded(f"mean_{when}_{what}", mean_over_runs(values[seen], confidence)),
        }.items()
    }


zero_loss = has_zero_loss(snakemake.input.pretrained)
record = (
    no_passage(runs.size, exits.size, params.max_steps)
    if zero_loss
    else first_passage(
        chain, batches, exits * initial_loss, key, runs=runs.tolist(), max_steps=params.max_steps
    )
)
passage = record.first_passage_step
passed = [np.flatnonzero(passage[:, index]) for index in range(exits.size)]
at_exits = [
    networks_after(some, passage[some, index]) if some.size else []
    for index, some in enumerate(passed)
]
at_steps = [networks_after(followed, np.full(followed.size, step)) for step in steps]
at_passage = np.full((2, followed.size), np.nan)
# As many as are followed, of those that pass.
first = np.arange(min(passed[-1].size, followed.size))
at_passage[:, first] = surroundings(at_exits[-1][: first.size], origin)
at_end = surroundings(at_steps[-1], origin)
lowered_loss = np.stack(
    [lowered_losses(networks, origin, **study["descent"]) for networks in at_steps], axis=1
)
initial_lowered_loss = lowered_losses([start], origin, **study["descent"])[0]
escaped = xr.concat(
    [of_runs(found, some).reindex(run=runs) for found, some in zip(at_exits, passed, strict=True)],
    "exit",
).transpose("run", "exit", "direction")
followed_loss = [departures(networks, origin).loss for networks in at_steps]
storage.write(
    escaped.drop_vars("run")
    .rename(loss="exit_loss", length="exit_length")
    .assign(
        {
            "eigenvalue": ("direction", origin.pairs.value),
            "curvature_trace": float(hessian["eigenvalue"].sum()),
            "count": count,
            "eta": eta,
            "batch_size": batch_size,
            "initial_loss": initial_loss,
            "exit_step": (("run", "exit"), passage),
            "followed_loss": (("followed", "step"), np.stack(followed_loss, axis=1)),
            "lowered_loss": (("followed", "step"), lowered_loss),
            "initial_lowered_loss": initial_lowered_loss,
            **bounded(
                "drift",
                mean_over_runs(lowered_loss / initial_lowered_loss - 1, confidence),
                ("step",),
            ),
            **around("exit", at_passage, first),
            **around("final", at_end, followed),
        }
    )
    .assign_coords(direction=np.arange(1, origin.pairs.value.size + 1), exit=exits, step=steps)
    .assign_attrs(
        storage.attributes(
            study | {"n_samples": params.n_samples, "root_seed": params.seed},
            seed=seed,
            equations="(15), (44), (45)",
        )
        | outcomes.attribute(
            outcomes.of_runs(record.diverged)
            | {
                "zero_loss": zero_loss,
                "unstable_learning_rates": np.sum(
                    np.array([eta, study["descent"]["learning_rate"]]) * origin.pairs.value[0] > 2
                ),
                "flat_directions": max(params.directions - len(origin.pairs.value), 0),
            }
        )
    ),
    snakemake.output[0],
    "escape",
)
