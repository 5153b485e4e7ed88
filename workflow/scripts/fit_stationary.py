from prologue import begin

begin(snakemake)

import numpy as np

from sgd_escape import escape_theory, storage
from sgd_escape.estimation import (
    Bootstrap,
    stationary_exponent_histogram,
    stationary_exponent_likelihood,
)

params = snakemake.params
bootstrap = Bootstrap(**params.fits, seed=params.seed)
samples = storage.read(snakemake.input.samples, "stationary_samples")
hessian, minimum, minimum_loss = (
    float(samples[name]) for name in ["hessian", "minimum", "minimum_loss"]
)


def log_loss_ratio(theta):
    return np.log1p(hessian * (theta - minimum) ** 2 / (2 * minimum_loss))


grid = ("eta", "batch_size")
names = [
    f"{name}{part}"
    for name in ["exponent", "exponent_likelihood"]
    for part in ["", "_low", "_high"]
]
fits = {name: (grid, np.full(samples["theta"].shape[:2], np.nan)) for name in names}
predicted = np.empty(samples["theta"].shape[:2])
for i, eta in enumerate(samples["eta"].values):
    for j, batch_size in enumerate(samples["batch_size"].values):
        predicted[i, j] = escape_theory.stationary_exponent(
            escape_theory.temperature(eta, batch_size, hessian)
        )
        theta = samples["theta"].values[i, j]
        if not np.isfinite(theta).all():
            continue
        blocks = theta.reshape(params.blocks, -1)
        estimates = [
            *stationary_exponent_histogram(
                blocks, log_loss_ratio, bootstrap, bins=params.bins, min_count=params.min_count
            ),
            *stationary_exponent_likelihood(log_loss_ratio(blocks), bootstrap),
        ]
        for name, value in zip(names, estimates, strict=True):
            fits[name][1][i, j] = value

fitted = samples.drop_vars("minimum").assign(fits | {"predicted_exponent": (grid, predicted)})
fitted.attrs = storage.attributes(
    {
        "samples": samples.attrs["config"],
        "fits": params.fits,
        "bins": params.bins,
        "min_count": params.min_count,
    },
    seed=params.seed,
    equations="(17)",
)
storage.write(fitted, snakemake.output[0], "stationary")
