from prologue import begin

begin(snakemake)

import numpy as np
import xarray as xr
from intervals import bounded

from sgd_escape import ladder, storage
from sgd_escape.config import threshold_grid
from sgd_escape.escape_theory import escape_exponent

study, fits = snakemake.params.study, snakemake.params.fits
parts = [storage.read(path, "ladder_data") for path in snakemake.input.data]
data = xr.concat([part.set_coords("dimension") for part in parts], "dimension").transpose(
    "data_set", "dimension", "eta", "batch_size", "data_threshold"
)
grid = {name: data[name].values for name in ["dimension", "eta", "batch_size"]}
loss_ratio, dims = threshold_grid(study["thresholds"]), tuple(grid)
shape = tuple(map(len, grid.values()))

exact, error = np.empty((2, len(ladder.EXACT_RUNGS), *shape, len(loss_ratio)))
power_law, weak_noise = np.empty(shape), np.empty((*shape, len(loss_ratio)))
for place in np.ndindex(shape):
    d, eta, batch_size = (
        values[index].item() for values, index in zip(grid.values(), place, strict=True)
    )
    exact[:, *place], error[:, *place] = ladder.exact_log_steps(
        loss_ratio, eta, batch_size, d, nodes=study["nodes"]
    )
    power_law[place] = escape_exponent(eta / batch_size, d)
    weak_noise[place] = batch_size / eta * (loss_ratio - 1)
potential = data["data_quasi_potential"].mean("data_set", skipna=False)
scale = data["batch_size"] / data["eta"]
limit = (scale * potential).transpose(*dims, "data_threshold").values
found = ladder.budget(
    data["log_steps"].values,
    exact[..., :: study["data_every"]],
    power_law,
    data["data_threshold"].values,
    tuple(study["fit_range"]),
    fits["confidence"],
)
storage.write(
    xr.Dataset(
        {
            "log_steps": (("exact_rung", *dims, "threshold"), exact),
            "log_steps_error": (("exact_rung", *dims, "threshold"), error),
            "local_slope": (
                ("exact_rung", *dims, "middle"),
                ladder.slopes_between(exact, loss_ratio),
            ),
            "weak_noise_slope": (
                (*dims, "middle"),
                ladder.slopes_between(weak_noise, loss_ratio),
            ),
            **{
                f"data_log_steps{part}": data[f"log_steps{part}"].variable
                for part in ["", "_low", "_high"]
            },
            "data_quasi_potential": (
                ("data_set", "dimension", "data_threshold"),
                data["data_quasi_potential"]
                .transpose("data_set", "dimension", "data_threshold")
                .values,
            ),
            "quasi_potential_slope": (
                (*dims, "data_middle"),
                ladder.slopes_between(limit, data["data_threshold"].values),
            ),
            **bounded("mean_log_steps", found.log_steps, (*dims, "data_threshold")),
            **bounded("data_local_slope", found.local_slope, (*dims, "data_middle")),
            **bounded("exponent", found.exponent, ("rung", *dims)),
            **bounded("time_share", found.time_share, ("share", *dims, "data_threshold")),
            **bounded("exponent_share", found.exponent_share, ("approximation", *dims)),
            "predicted_exponent": (dims, power_law),
        },
        grid
        | {
            "data_set": data["data_set"].values,
            "threshold": loss_ratio,
            "middle": np.sqrt(loss_ratio[1:] * loss_ratio[:-1]),
            "data_threshold": data["data_threshold"].values,
            "data_middle": np.exp(np.convolve(np.log(data["data_threshold"]), [0.5, 0.5], "valid")),
            "exact_rung": list(ladder.EXACT_RUNGS),
            "rung": list(ladder.RUNGS),
            "approximation": list(ladder.APPROXIMATIONS),
            "share": list(ladder.APPROXIMATIONS[:-1]),
        },
        storage.attributes(study | fits, seed=snakemake.params.seed, equations="(2), (4), (12)"),
    ),
    snakemake.output[0],
    "ladder",
)
