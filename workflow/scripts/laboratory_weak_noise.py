from prologue import begin

begin(snakemake)

import numpy as np
import xarray as xr
from ensembles import in_steps
from intervals import bounded

from sgd_escape import escape_theory, quasi_potential, storage
from sgd_escape.batches import GaussianIncrements, stream_key
from sgd_escape.chains import FreshRegression
from sgd_escape.discrete_theory import gaussian_passage_steps
from sgd_escape.estimation import Estimate, fit_line, passage_steps
from sgd_escape.splitting import exit_rates, loss_levels

study, seed = snakemake.params.study, snakemake.params.seed
confidence = snakemake.params.fits["confidence"]
loss_ratio, batch_size = study["loss_ratio"], study["batch_size"]
etas = np.array(study["learning_rates"], float)

found = [
    passage_steps(
        exit_rates(
            FreshRegression.of_dimension(1, eta),
            GaussianIncrements(2 * batch_size),
            # L* = 1/2.
            loss_levels(0.5, loss_ratio, study["ensemble"]["bins"]),
            stream_key(seed, eta, batch_size, loss_ratio),
            **in_steps(study["ensemble"], eta),
        ),
        confidence,
    )
    for eta in etas.tolist()
]
steps = Estimate(*np.transpose(found))
# At a threshold that is no saddle log τ = (B/η) V - ½ log η + const, τ in steps: docs/splitting.md.
reduced = Estimate(*(np.log(bound) + 0.5 * np.log(etas) for bound in steps))
line = fit_line(batch_size / etas, reduced, confidence)


def diffusion_steps(exact_covariance):
    at = np.array([loss_ratio])
    return [
        np.exp(
            escape_theory.log_mean_first_passage_time(
                at, eta / batch_size, 1, exact_covariance=exact_covariance
            )[0]
        )
        / eta
        for eta in etas
    ]


storage.write(
    xr.Dataset(
        bounded("mean_first_passage_step", steps, ("eta",))
        | bounded("quasi_potential", line.slope)
        | {
            "exact_first_passage_step": (
                "eta",
                [gaussian_passage_steps(loss_ratio, eta, batch_size).mean for eta in etas],
            ),
            "diffusion_first_passage_step": ("eta", diffusion_steps(False)),
            "exact_covariance_first_passage_step": ("eta", diffusion_steps(True)),
            "predicted_quasi_potential": (
                (),
                quasi_potential.gaussian_quasi_potential(loss_ratio, np.eye(1), 0.5),
            ),
            "diffusion_quasi_potential": ((), np.log(loss_ratio)),
            "exact_covariance_quasi_potential": ((), np.log1p(2 * (loss_ratio - 1)) / 2),
            "threshold": ((), loss_ratio),
            "batch_size": ((), batch_size),
        },
        {"eta": etas},
        storage.attributes(study | snakemake.params.fits, seed=seed, equations="(2), (4), (12)"),
    ),
    snakemake.output[0],
    "weak_noise",
)
