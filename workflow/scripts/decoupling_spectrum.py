from prologue import begin

begin(snakemake)

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from network_files import read_parity
from training_files import read_layers

from sgd_escape import decoupling, outcomes, storage
from sgd_escape.estimation import Bootstrap
from sgd_escape.gradient_noise import output_gram
from sgd_escape.losses import mean_square_loss
from sgd_escape.networks import apply_network

params, study = snakemake.params, snakemake.params.study
inputs, labels = read_parity(snakemake.input.data, study["n_samples"])
network, inputs, labels = jax.tree.map(
    lambda array: jnp.asarray(array, jnp.float64),
    (read_layers(snakemake.input.network), inputs, labels[:, None]),
)
losses = np.asarray(mean_square_loss(apply_network(network, inputs), labels))
gram = output_gram(network, inputs)
spectra = decoupling.spectra(gram, losses, study["directions"])
bootstrap = Bootstrap(**params.fits, seed=params.seed)
groups, fraction = study["groups"], study["leading_fraction"]
estimates = {
    "relative_distance": decoupling.relative_distance(gram, losses, bootstrap, groups=groups),
    "correlation": decoupling.correlation(losses, gram.diagonal(), bootstrap, groups=groups),
}
storage.write(
    xr.Dataset(
        {
            "epoch": int(snakemake.wildcards.epoch),
            "loss": losses.mean(),
            "eigenvalue_exact": ("index", spectra.eigenvalue_exact),
            "eigenvalue_decoupled": ("index", spectra.eigenvalue_decoupled),
            "rounding_floor": spectra.rounding_floor,
            "principal_cosine": ("direction", spectra.principal_cosine),
            "overlap": spectra.overlap,
            "spectral_distance": spectra.spectral_distance(0),
            "leading_fraction": fraction,
            "eigenvalue_factor": 10 ** spectra.spectral_distance(fraction),
            "distribution_distance": spectra.distribution_distance(fraction),
            "permuted_distance": decoupling.permuted_distance(gram, losses),
        }
        | {
            f"{name}{part}": number
            for name, estimate in estimates.items()
            for part, number in zip(["", "_low", "_high"], estimate, strict=True)
        },
        attrs=storage.attributes(study | params.fits, seed=params.seed, equations="(7)")
        | outcomes.attribute({"undefined_overlaps": int(np.isnan(spectra.overlap))}),
    ),
    snakemake.output[0],
    "decoupling",
)
