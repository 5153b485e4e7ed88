from prologue import begin

begin(snakemake)

from itertools import product

import numpy as np
import xarray as xr
from fits import fit_case, fit_outcomes
from intervals import bounded

from sgd_escape import storage
from sgd_escape.estimation import Bootstrap, Estimate, curvature_and_dimension

params = snakemake.params
bootstrap = Bootstrap(**params.fits, seed=params.seed)
hessian = storage.read(snakemake.input.hessian, "hessian")
curvature, dimension = float(hessian["eigenvalue"][0]), float(hessian["effective_dimension"])
paper = params.paper_values
etas, batch_sizes = np.asarray(params.learning_rates, float), np.asarray(params.batch_sizes)
fits = xr.combine_by_coords(
    [
        fit_case(
            storage.read(path, "first_passage"),
            params.fit_range,
            bootstrap,
            {
                "": (curvature, dimension),
                "_paper": (paper["curvature"], paper["effective_dimension"]),
            },
        ).expand_dims(eta=[eta], batch_size=[batch_size])
        for path, (eta, batch_size) in zip(
            snakemake.input.first_passage, product(etas, batch_sizes), strict=True
        )
    ],
    combine_attrs="drop",
)
exponents = Estimate(*(fits[f"exponent{part}"].values for part in ["", "_low", "_high"]))
fitted = curvature_and_dimension(batch_sizes / etas[:, None], exponents, params.fits["confidence"])
fits = fits.assign(
    bounded("fitted_curvature", fitted.curvature, ("batch_size",))
    | bounded("fitted_effective_dimension", fitted.effective_dimension, ("batch_size",))
    | {
        "paper_curvature": paper["curvature"],
        "paper_effective_dimension": paper["effective_dimension"],
        "curvature": curvature,
        "effective_dimension": dimension,
        "seed": params.reference_seed,
    }
)
fits.attrs = storage.attributes(
    {"fits": params.fits, "fit_range": params.fit_range, "paper_values": paper},
    seed=params.seed,
    equations="(12), (15)",
) | fit_outcomes(fits, curvature)
storage.write(fits, snakemake.output[0], "fit")
