from prologue import begin

begin(snakemake)

import numpy as np
import xarray as xr
from intervals import bounded
from network_files import has_zero_loss, read_network, read_parity

from sgd_escape import curvature, outcomes, storage
from sgd_escape.alignment import alignment, group_sums
from sgd_escape.estimation import Bootstrap

params, count = snakemake.params, snakemake.params.study["directions"]
inputs, labels = read_parity(snakemake.input.data, params.n_samples)
problem = (read_network(snakemake.input.pretrained), inputs, labels[:, None])
hessian = curvature.curved(
    curvature.leading_eigenpairs(curvature.gauss_newton_operator(*problem[:2]), count)
)
curved = len(hessian.value)
exact = np.full(curved, np.nan)
found_exact = curvature.leading_eigenpairs(curvature.hessian_operator(*problem), curved).value
exact[: len(found_exact)] = found_exact
zero_loss = has_zero_loss(snakemake.input.pretrained)
residual_term = curvature.residual_term_operator(*problem)
residual_ratio = curvature.quadratic_forms(residual_term, hessian.vector) / hessian.value
sums = group_sums(*problem, hessian.vector)
found = alignment(sums, Bootstrap(**params.fits, seed=params.seed), zero_loss=zero_loss)
storage.write(
    xr.Dataset(
        {
            "eigenvalue": ("direction", hessian.value),
            "exact_eigenvalue": ("direction", exact),
            "noise": ("direction", found.noise),
            **bounded("noise_ratio", found.ratio, ("direction",)),
            **bounded("trace_ratio", found.trace_ratio),
            **bounded("noise_exponent", found.exponent),
            "loss": ((), found.loss),
            "noise_trace": ((), found.noise_trace),
            "curvature_trace": ((), found.curvature_trace),
            "gradient_fraction": ((), found.gradient_fraction),
            "gradient_fraction_along": ("direction", found.gradient_fraction_along),
            "residual_ratio": ("direction", residual_ratio),
            "residual_norm": ((), curvature.spectral_norm(residual_term) / hessian.value[0]),
            "group_examples": ("group", sums.examples),
            "group_curvature": (("group", "direction"), sums.curvature[:, :-1]),
            "group_trace": ("group", sums.curvature[:, -1]),
        },
        {"direction": np.arange(1, curved + 1)},
        storage.attributes(
            params.study
            | params.fits
            | {"n_samples": params.n_samples, "bootstrap_seed": params.seed},
            seed=int(snakemake.wildcards.seed),
            equations="(6), (8), (10), (44)",
        )
        | outcomes.attribute(
            {
                "flat_directions": count - curved,
                "zero_loss": zero_loss,
                "noiseless_directions": 0 if zero_loss else np.sum(found.noise == 0),
            }
        ),
    ),
    snakemake.output[0],
    "alignment",
)
