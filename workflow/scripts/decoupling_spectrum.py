from prologue import begin

begin(snakemake)

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from intervals import bounded
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


def measured():
    """Both sides of Eq. (7) and how far they are apart."""
    gram = output_gram(network, inputs)
    spectra = decoupling.spectra(gram, losses, study["directions"])
    bootstrap = Bootstrap(**params.fits, seed=params.seed)
    groups, fraction = study["groups"], study["leading_fraction"]
    distance = decoupling.relative_distance(gram, losses, bootstrap, groups=groups)
    correlation = decoupling.correlation(losses, gram.diagonal(), bootstrap, groups=groups)
    return {
        "eigenvalue_exact": ("index", spectra.eigenvalue_exact),
        "eigenvalue_decoupled": ("index", spectra.eigenvalue_decoupled),
        "rounding_floor": ((), spectra.rounding_floor),
        "principal_cosine": ("direction", spectra.principal_cosine),
        "overlap": ((), spectra.overlap),
        "spectral_distance": ((), spectra.spectral_distance(0)),
        "eigenvalue_factor": ((), 10 ** spectra.spectral_distance(fraction)),
        "distribution_distance": ((), spectra.distribution_distance(fraction)),
        "permuted_distance": ((), decoupling.permuted_distance(gram, losses)),
        **bounded("relative_distance", distance),
        **bounded("correlation", correlation),
    }


def undefined():
    """The same variables where there is no spectrum: numbers without a value."""
    sizes = {"index": study["n_samples"], "direction": study["directions"]}
    layout = storage.KINDS["decoupling"].variables
    dims = {name: layout[name].split()[1:] for name in layout if name not in common}
    return {
        name: (of_one, np.full([sizes[dim] for dim in of_one], np.nan))
        for name, of_one in dims.items()
    }


common = {
    "epoch": int(snakemake.wildcards.epoch),
    "loss": losses.mean(),
    "leading_fraction": study["leading_fraction"],
}
named = {
    "diverged": not np.isfinite(losses).all(),
    "zero_loss": outcomes.is_zero(losses.mean(), np.asarray(labels)),
}
dataset = xr.Dataset(common | (undefined() if any(named.values()) else measured()))
named["undefined_overlaps"] = bool(dataset["overlap"].isnull()) and not any(named.values())
dataset.attrs = storage.attributes(study | params.fits, seed=params.seed, equations="(7)")
storage.write(dataset.assign_attrs(outcomes.attribute(named)), snakemake.output[0], "decoupling")
