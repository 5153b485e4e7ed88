from prologue import begin

begin(snakemake)

import numpy as np
import xarray as xr
from network_files import read_network, read_parity

from sgd_escape import curvature, storage

params = snakemake.params
inputs, _ = read_parity(snakemake.input.data, params.n_samples)
network = read_network(snakemake.input.pretrained)
eigenvalues = curvature.spectrum(curvature.gauss_newton_hessian(network, inputs))
fractions = np.asarray(params.study["fractions"], float)
storage.write(
    xr.Dataset(
        {
            "eigenvalue": ("index", eigenvalues),
            "effective_dimension": ((), curvature.effective_dimension(eigenvalues)),
            "gap_dimension": ((), curvature.gap_dimension(eigenvalues)),
            "threshold_dimension": (
                "fraction",
                curvature.threshold_dimension(eigenvalues, fractions),
            ),
        },
        {"fraction": fractions},
        storage.attributes(
            params.study | {"n_samples": params.n_samples},
            seed=int(snakemake.wildcards.seed),
            equations="(44), (45)",
        )
        | {"matrix": "(1/N) sum over samples of grad f grad f^T, Eq. (44)"},
    ),
    snakemake.output[0],
    "hessian",
)
