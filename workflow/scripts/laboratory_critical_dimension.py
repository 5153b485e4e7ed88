from prologue import begin

begin(snakemake)

import numpy as np
import xarray as xr
from fresh_exponents import simulated_exponents

from sgd_escape import escape_theory, gaussian_kernel, ladder, storage

study, fits, seed = snakemake.params.study, snakemake.params.fits, snakemake.params.seed
fractions, simulation = study["fractions"], study["simulation"]
grid = {
    "eta": np.array(study["learning_rates"], float),
    "batch_size": np.array(study["batch_sizes"]),
}
fraction = np.linspace(fractions["min"], fractions["max"], fractions["count"])
shape = tuple(map(len, grid.values()))
critical, lyapunov, mean_square = (np.empty(shape) for _ in range(3))
dimension, exact, predicted, covariance = (np.empty((*shape, len(fraction))) for _ in range(4))
for place in np.ndindex(shape):
    eta, batch_size = (
        values[index].item() for values, index in zip(grid.values(), place, strict=True)
    )
    temperature = eta / batch_size
    critical[place] = escape_theory.critical_dimension(temperature)
    lyapunov[place] = gaussian_kernel.lyapunov_dimension(eta, batch_size)
    mean_square[place] = gaussian_kernel.mean_square_dimension(eta, batch_size)
    dimension[place] = np.maximum(fraction * critical[place], 1)
    for index, d in enumerate(dimension[place].tolist()):
        exact[(*place, index)] = ladder.asymptotic_exponent(eta, batch_size, d)
    predicted[place] = 1 / temperature + 1 - dimension[place] / 2
    covariance[place] = 1 / (2 * temperature) + 3 / 4 - dimension[place] / 4

dims = tuple(grid)
storage.write(
    xr.Dataset(
        {
            "critical_dimension": (dims, critical),
            "lyapunov_dimension": (dims, lyapunov),
            "mean_square_dimension": (dims, mean_square),
            "dimension": ((*dims, "fraction"), dimension),
            "exponent": ((*dims, "fraction"), exact),
            "predicted_exponent": ((*dims, "fraction"), predicted),
            "exact_covariance_exponent": ((*dims, "fraction"), covariance),
            "simulated_eta": ((), simulation["learning_rate"]),
            "simulated_batch_size": ((), simulation["batch_size"]),
        }
        | simulated_exponents(simulation, fits["confidence"], seed),
        grid | {"fraction": fraction, "simulated_dimension": np.array(simulation["dimensions"])},
        storage.attributes(study | fits, seed=seed, equations="(2), (16)"),
    ),
    snakemake.output[0],
    "critical_dimension",
)
