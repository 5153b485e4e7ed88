from prologue import begin

begin(snakemake)

from itertools import product

import numpy as np
import xarray as xr
from fits import exact_case, fit_case, fit_outcomes
from intervals import bounded

from sgd_escape import storage
from sgd_escape.estimation import Bootstrap, Estimate, fit_line

params = snakemake.params
bootstrap = Bootstrap(**params.fits, seed=params.seed)
grid = [params.dimensions, [float(eta) for eta in params.learning_rates], params.batch_sizes]


def one_case(path, dimension, eta, batch_size):
    record = storage.read(path, "first_passage")
    fit = fit_case(record, params.fit_range, bootstrap, {"": (1.0, dimension)})
    exact = exact_case(record, params.fit_range, dimension)
    point = {"dimension": [dimension], "eta": [eta], "batch_size": [batch_size]}
    return fit.merge(exact).expand_dims(point)


cases = [
    one_case(path, *point)
    for path, point in zip(snakemake.input.first_passage, product(*grid), strict=True)
]
fits = xr.combine_by_coords(cases, combine_attrs="drop")
if len(params.dimensions) > 2:
    exponents = Estimate(*(fits[f"exponent{part}"].values for part in ["", "_low", "_high"]))
    line = fit_line(np.asarray(params.dimensions, float), exponents, params.fits["confidence"])
    fits = fits.assign(bounded("dimension_slope", line.slope, ("eta", "batch_size")))
fits.attrs = storage.attributes(
    {"fits": params.fits, "fit_range": params.fit_range}, seed=params.seed, equations="(12), (15)"
) | fit_outcomes(fits, 1.0)
storage.write(fits, snakemake.output[0], "fit")
