from prologue import begin

begin(snakemake)

import numpy as np
import xarray as xr
from fits import fit_case, fit_outcomes
from intervals import bounded

from sgd_escape import estimation, storage
from sgd_escape.estimation import Bootstrap, Estimate
from sgd_escape.outliers import GroupCurvatures, estimated_outliers, predicted_exponent

params, files = snakemake.params, snakemake.input
bootstrap = Bootstrap(**params.fits, seed=params.seed)
cases, seeds = params.cases, params.seeds


def of_seed(hessian, alignment, first_passage):
    """Every case of one seed: measured exponents, and predicted ones with their intervals."""
    eigenvalue, kept = hessian["eigenvalue"].values, alignment.sizes["direction"]
    sums = GroupCurvatures(
        alignment["group_examples"].values,
        alignment["group_curvature"].values,
        alignment["group_trace"].values,
        float(np.sum(eigenvalue[kept:] ** 2)),
    )
    curvature, dimension = estimated_outliers(sums, bootstrap)
    own = (float(curvature.value), float(dimension.value))
    records = [storage.read(path, "first_passage") for path in first_passage]
    fitted = xr.concat(
        [fit_case(record, params.fit_range, bootstrap, {"": own}) for record in records], "case"
    )
    ratios = [case["learning_rate"] / case["batch_size"] for case in cases]
    predicted = [predicted_exponent(sums, ratio, bootstrap) for ratio in ratios]
    return fitted.drop_vars("predicted_exponent").assign(
        bounded("curvature", curvature)
        | bounded("effective_dimension", dimension)
        | bounded(
            "predicted_exponent",
            Estimate(*map(np.asarray, zip(*predicted, strict=True))),
            ("case",),
        )
        | {
            "threshold_dimension": hessian["threshold_dimension"],
            "gap_dimension": hessian["gap_dimension"],
        }
    )


def ratio_to_prediction(fits):
    """Measured over predicted exponent; both intervals relative to their values add in squares."""
    measured, predicted = fits["exponent"], fits["predicted_exponent"]
    ratio = measured / predicted

    def half_width(of_measured, of_predicted):
        errors = [
            fits[f"exponent_{of_measured}"] / measured - 1,
            fits[f"predicted_exponent_{of_predicted}"] / predicted - 1,
        ]
        return abs(ratio) * sum(error**2 for error in errors) ** 0.5

    low, high = ratio - half_width("low", "high"), ratio + half_width("high", "low")
    return xr.Dataset({"ratio": ratio, "ratio_low": low, "ratio_high": high})


def collapse(fits):
    """The line of Eq. (15) through all exponents against B/(ηh_1), and what h_1 is worth there.

    The cases of one seed share its h_1, its n and its minimum: intervals leave out whole seeds.
    """
    inverse_noise = fits["batch_size"] / fits["eta"]
    x = (inverse_noise / fits["curvature"]).transpose("seed", "case")
    common = inverse_noise.broadcast_like(x).transpose("seed", "case").values
    measured = [
        fits[f"exponent{part}"].transpose("seed", "case").values for part in ["", "_low", "_high"]
    ]

    def of_seeds(kept):
        own, shared = x.values[kept].ravel(), common[kept].ravel()
        exponents = Estimate(*(bound[kept].ravel() for bound in measured))
        line = estimation.fit_line(own, exponents, params.fits["confidence"])
        scatter = estimation.relative_scatter(own, exponents.value)
        ratio = scatter / estimation.relative_scatter(shared, exponents.value)
        return np.array([line.slope.value, 2 * (1 - line.intercept.value), scatter, ratio])

    found = estimation.jackknife(of_seeds, len(seeds), params.fits["confidence"])
    names = ["slope", "dimension", "scatter", "scatter_ratio"]
    table = {
        "scaled_inverse_noise": x,
        "mean_effective_dimension": fits["effective_dimension"].mean(),
    }
    for index, name in enumerate(names):
        table |= bounded(f"collapse_{name}", Estimate(*(bound[index] for bound in found)))
    return table


by_seed = np.reshape(files.first_passage, (len(seeds), len(cases)))
fits = xr.concat(
    [
        of_seed(storage.read(hessian, "hessian"), storage.read(alignment, "alignment"), paths)
        for hessian, alignment, paths in zip(files.hessian, files.alignment, by_seed, strict=True)
    ],
    "seed",
).assign_coords(
    seed=seeds,
    eta=("case", [case["learning_rate"] for case in cases]),
    batch_size=("case", [case["batch_size"] for case in cases]),
)
fits = fits.assign(ratio_to_prediction(fits)).assign(collapse(fits))
fits.attrs = storage.attributes(
    {"fits": params.fits, "fit_range": params.fit_range, "cases": cases},
    seed=params.seed,
    equations="(15), (44), (45)",
) | fit_outcomes(fits, fits["curvature"])
storage.write(fits, snakemake.output[0], "fit")
