"""NetCDF files between rules: written whole or not at all, and checked whenever they are read.

After the NetCDF bytes, where other programs do not look, stands their SHA-256: the HDF5 library may
hang on damaged bytes, so they are checked before it sees them. The attribute `content_sha256`
says which content a file holds, whatever the version and settings of the library that wrote it.
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from sgd_escape import __version__
from sgd_escape.errors import SgdEscapeError
from sgd_escape.files import RUN_AGAIN, write_bytes_atomically

_DIGEST = "content_sha256"
_SEAL = b"\nsha256:"
_SEAL_BYTES = len(_SEAL) + 64
_CHUNK_BYTES = 2**20


class FileKind(NamedTuple):
    """What a file must hold.

    `variables` maps each variable and coordinate to "dtype dim dim ..." (no dims: a scalar), where
    the dtype may be text; None leaves the set free. Floats must be finite except those named in
    `may_be_non_finite`.
    """

    variables: Mapping[str, str] | None
    may_be_non_finite: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()


def _bounded(name: str, layout: str) -> dict[str, str]:
    return dict.fromkeys((name, f"{name}_low", f"{name}_high"), layout)


_CASE = "dimension eta batch_size"
_CASES = {
    "dimension": "int64 dimension",
    "eta": "float64 eta",
    "batch_size": "int64 batch_size",
}
_FITTED_EXPONENTS = (
    "exponent",
    "exponent_low",
    "exponent_high",
    "exponent_likelihood",
    "exponent_likelihood_low",
    "exponent_likelihood_high",
)

_ESCAPES = {
    **dict.fromkeys(("exit_loss", "exit_length", "subspace_share"), "float64 run exit"),
    **dict.fromkeys(("squared_share", "loss_share"), "float64 run exit direction"),
    **_bounded("mean_squared_share", "float64 exit direction"),
    **_bounded("mean_loss_share", "float64 exit direction"),
    **_bounded("mean_subspace_share", "float64 exit"),
    **dict.fromkeys(("followed_loss", "lowered_loss"), "float64 followed step"),
    **_bounded("drift", "float64 step"),
    **dict.fromkeys(
        ("exit_overlap", "final_overlap", "exit_sharpness", "final_sharpness"), "float64 followed"
    ),
    **_bounded("mean_exit_overlap", "float64"),
    **_bounded("mean_final_overlap", "float64"),
    **_bounded("mean_exit_sharpness", "float64"),
    **_bounded("mean_final_sharpness", "float64"),
}

KINDS: dict[str, FileKind] = {
    "dataset": FileKind(
        {
            "image": "uint8 sample row column",
            "label": "uint8 sample",
        }
    ),
    "color_dataset": FileKind(
        {
            "image": "uint8 sample row column channel",
            "label": "uint8 sample",
        }
    ),
    "stationary_samples": FileKind(
        {
            "eta": "float64 eta",
            "batch_size": "int64 batch_size",
            "theta": "float64 eta batch_size sample",
            "hessian": "float64",
            "minimum": "float64",
            "minimum_loss": "float64",
        },
        may_be_non_finite=("theta",),
    ),
    # A chain that diverges is an outcome: its theta is not finite and has no exponent.
    "stationary": FileKind(
        {
            "eta": "float64 eta",
            "batch_size": "int64 batch_size",
            "theta": "float64 eta batch_size sample",
            **dict.fromkeys(_FITTED_EXPONENTS, "float64 eta batch_size"),
            "predicted_exponent": "float64 eta batch_size",
            "hessian": "float64",
            "minimum_loss": "float64",
        },
        may_be_non_finite=("theta", *_FITTED_EXPONENTS),
    ),
    # first_passage_step is 0 where a run was not seen to pass; threshold is c = L/L*.
    "first_passage": FileKind(
        {
            "run": "int64 run",
            "threshold": "float64 threshold",
            "first_passage_step": "int64 run threshold",
            "observed_steps": "int64 run",
            "diverged": "int8 run",
            "eta": "float64",
            "batch_size": "int64",
            "n_samples": "int64",
            "max_steps": "int64",
            "initial_loss": "float64",
        }
    ),
    "pretrained": FileKind(
        {
            "hidden_weight": "float32 input hidden",
            "hidden_bias": "float32 hidden",
            "output_weight": "float32 hidden",
            "output_bias": "float32",
            "training_loss": "float64 epoch",
            "loss": "float64",
        }
    ),
    "hessian": FileKind(
        {
            "eigenvalue": "float64 index",
            "effective_dimension": "float64",
            "gap_dimension": "int64",
            "fraction": "float64 fraction",
            "threshold_dimension": "int64 fraction",
        },
        attributes=("matrix",),
    ),
    "noise": FileKind(
        {
            "epoch": "int64 epoch",
            "loss": "float64 epoch",
            "noise_strength": "float64 epoch",
            "squared_mean_gradient": "float64 epoch",
            "trace_epoch": "int64 trace_epoch",
            "trace_factor": "float64 trace_epoch",
            "weighted_trace_factor": "float64 trace_epoch",
            "outputs": "int64",
            "diverged": "int8",
        },
        # From the epoch on after which a training has diverged.
        may_be_non_finite=(
            "loss",
            "noise_strength",
            "squared_mean_gradient",
            "trace_factor",
            "weighted_trace_factor",
        ),
    ),
    "decoupling": FileKind(
        {
            "epoch": "int64",
            "loss": "float64",
            "eigenvalue_exact": "float64 index",
            "eigenvalue_decoupled": "float64 index",
            "rounding_floor": "float64",
            "principal_cosine": "float64 direction",
            "overlap": "float64",
            "spectral_distance": "float64",
            "leading_fraction": "float64",
            "eigenvalue_factor": "float64",
            "distribution_distance": "float64",
            "relative_distance": "float64",
            "relative_distance_low": "float64",
            "relative_distance_high": "float64",
            "permuted_distance": "float64",
            "correlation": "float64",
            "correlation_low": "float64",
            "correlation_high": "float64",
        },
        # Where fewer eigenvalues than directions lie above the rounding floor; and all of them but
        # the epoch where a training has diverged or has no loss left.
        may_be_non_finite=(
            "loss",
            "eigenvalue_exact",
            "eigenvalue_decoupled",
            "rounding_floor",
            "principal_cosine",
            "overlap",
            "spectral_distance",
            "eigenvalue_factor",
            "distribution_distance",
            "relative_distance",
            "relative_distance_low",
            "relative_distance_high",
            "permuted_distance",
            "correlation",
            "correlation_low",
            "correlation_high",
        ),
    ),
    # A network of any layers, which its attribute names: weight_0, bias_0, ...
    "network": FileKind(None, attributes=("layers",)),
    "alignment": FileKind(
        {
            "direction": "int64 direction",
            "eigenvalue": "float64 direction",
            "exact_eigenvalue": "float64 direction",
            "noise": "float64 direction",
            **dict.fromkeys(
                ("noise_ratio", "noise_ratio_low", "noise_ratio_high"), "float64 direction"
            ),
            "gradient_fraction_along": "float64 direction",
            "residual_ratio": "float64 direction",
            "loss": "float64",
            "noise_trace": "float64",
            "curvature_trace": "float64",
            **dict.fromkeys(("trace_ratio", "trace_ratio_low", "trace_ratio_high"), "float64"),
            **dict.fromkeys(
                ("noise_exponent", "noise_exponent_low", "noise_exponent_high"), "float64"
            ),
            "gradient_fraction": "float64",
            "residual_norm": "float64",
            "group_examples": "int64 group",
            "group_curvature": "float64 group direction",
            "group_trace": "float64 group",
        },
        # At zero loss there is no noise to compare; of a multiple eigenvalue one copy is found.
        may_be_non_finite=(
            "exact_eigenvalue",
            *_bounded("noise_ratio", ""),
            *_bounded("trace_ratio", ""),
            *_bounded("noise_exponent", ""),
            "gradient_fraction",
            "gradient_fraction_along",
        ),
    ),
    # Where no simulation was made, or an interval has no upper end, a number is not finite.
    "splitting": FileKind(
        {
            "threshold": "float64 threshold",
            **_bounded("mean_first_passage_step", "float64 threshold"),
            **_bounded("simulated_first_passage_step", "float64 threshold"),
            "exact_first_passage_step": "float64 threshold",
            "exact_error": "float64 threshold",
            "eta": "float64",
        },
        may_be_non_finite=(
            "mean_first_passage_step_high",
            *_bounded("simulated_first_passage_step", ""),
        ),
    ),
    "coverage": FileKind(
        {
            **_bounded("coverage", "float64"),
            **_bounded("mean_first_passage_step", "float64"),
            "exact_first_passage_step": "float64",
            "exact_error": "float64",
            "intervals": "int64",
        }
    ),
    "weak_noise": FileKind(
        {
            "eta": "float64 eta",
            **_bounded("mean_first_passage_step", "float64 eta"),
            "exact_first_passage_step": "float64 eta",
            "diffusion_first_passage_step": "float64 eta",
            "exact_covariance_first_passage_step": "float64 eta",
            **_bounded("quasi_potential", "float64"),
            "predicted_quasi_potential": "float64",
            "diffusion_quasi_potential": "float64",
            "exact_covariance_quasi_potential": "float64",
            "threshold": "float64",
            "batch_size": "int64",
        },
        may_be_non_finite=("mean_first_passage_step_high",),
    ),
    # Where runs are when they first pass c; NaN where one does not, as `exit_step` 0 says. Fewer
    # runs are followed on to fixed steps.
    "escape": FileKind(
        {
            "direction": "int64 direction",
            "eigenvalue": "float64 direction",
            "curvature_trace": "float64",
            "count": "int64",
            "eta": "float64",
            "batch_size": "int64",
            "initial_loss": "float64",
            "exit": "float64 exit",
            "exit_step": "int64 run exit",
            "step": "int64 step",
            "initial_lowered_loss": "float64",
            **_ESCAPES,
        },
        may_be_non_finite=tuple(_ESCAPES),
    ),
    "exit_rates": FileKind(
        {
            "well": "text case",
            "noise_parameter": "float64 case",
            "minimum_loss": "float64 case",
            "saddle_loss": "float64 case",
            "step_size": "float64 step_size",
            "exit_rate": "float64 case step_size repetition",
        }
    ),
    "double_well": FileKind(
        {
            "well": "text well",
            "temperature": "float64 temperature",
            **_bounded("rate", "float64 well temperature"),
            **_bounded("ratio_printed", "float64 well temperature"),
            **_bounded("ratio_corrected", "float64 well temperature"),
            **_bounded("ratio_exact", "float64 well temperature"),
            "exact_ratio_printed": "float64 well temperature",
            "transverse_ratio": "float64 well",
            "transverse_factor": "float64 well",
            **_bounded("limit_printed", "float64 well"),
            **_bounded("limit_corrected", "float64 well"),
            **_bounded("mean_ratio_exact", "float64 well"),
            "series": "text series",
            "contrast_minimum_loss": "float64 series minimum",
            "contrast_saddle_loss": "float64 series minimum",
            "contrast_strength": "float64",
            "contrast_slope_predicted": "float64 series",
            **_bounded("sgd_log_rate", "float64 series minimum"),
            **_bounded("gld_log_rate", "float64 series minimum"),
            **_bounded("sgd_slope", "float64 series"),
            **_bounded("gld_slope", "float64 series"),
            "line_minimum_loss": "float64 series point",
            **dict.fromkeys(
                ("sgd_log_rate_exact", "gld_log_rate_exact", "matched_log_rate_exact"),
                "float64 series point",
            ),
        }
    ),
    # A threshold that splitting does not resolve on some data set has no time, nor what follows.
    "ladder_data": FileKind(
        {
            "data_set": "int64 data_set",
            "eta": "float64 eta",
            "batch_size": "int64 batch_size",
            "data_threshold": "float64 data_threshold",
            "dimension": "int64",
            **_bounded("log_steps", "float64 data_set eta batch_size data_threshold"),
            "data_quasi_potential": "float64 data_set data_threshold",
        },
        may_be_non_finite=(*_bounded("log_steps", ""), "data_quasi_potential"),
    ),
    "ladder": FileKind(
        {
            "data_set": "int64 data_set",
            **_CASES,
            "threshold": "float64 threshold",
            "middle": "float64 middle",
            "data_threshold": "float64 data_threshold",
            "data_middle": "float64 data_middle",
            "exact_rung": "text exact_rung",
            "rung": "text rung",
            "approximation": "text approximation",
            "share": "text share",
            "log_steps": f"float64 exact_rung {_CASE} threshold",
            "local_slope": f"float64 exact_rung {_CASE} middle",
            "weak_noise_slope": f"float64 {_CASE} middle",
            "log_steps_error": f"float64 exact_rung {_CASE} threshold",
            **_bounded("data_log_steps", f"float64 data_set {_CASE} data_threshold"),
            "data_quasi_potential": "float64 data_set dimension data_threshold",
            "quasi_potential_slope": f"float64 {_CASE} data_middle",
            **_bounded("mean_log_steps", f"float64 {_CASE} data_threshold"),
            **_bounded("data_local_slope", f"float64 {_CASE} data_middle"),
            **_bounded("exponent", f"float64 rung {_CASE}"),
            **_bounded("time_share", f"float64 share {_CASE} data_threshold"),
            **_bounded("exponent_share", f"float64 approximation {_CASE}"),
            "predicted_exponent": f"float64 {_CASE}",
        },
        may_be_non_finite=(
            "data_quasi_potential",
            "quasi_potential_slope",
            *(
                bound
                for name in (
                    "data_log_steps",
                    "mean_log_steps",
                    "data_local_slope",
                    "exponent",
                    "time_share",
                    "exponent_share",
                )
                for bound in _bounded(name, "")
            ),
        ),
    ),
    # The exponent of Eq. (15) may not be positive; discrete SGD is left out for d > 1 to save time.
    "regime_map": FileKind(
        {
            "exact_rung": "text exact_rung",
            "dimension": "int64 dimension",
            "temperature": "float64 temperature",
            "threshold": "float64 threshold",
            **dict.fromkeys(
                ("power_law_ratio", "arrhenius_ratio", "power_law_gain"),
                "float64 exact_rung dimension temperature threshold",
            ),
            "batch_size": "int64",
        },
        may_be_non_finite=("power_law_ratio", "arrhenius_ratio", "power_law_gain"),
    ),
    "critical_dimension": FileKind(
        {
            "eta": "float64 eta",
            "batch_size": "int64 batch_size",
            "fraction": "float64 fraction",
            "simulated_dimension": "int64 simulated_dimension",
            **dict.fromkeys(
                ("critical_dimension", "lyapunov_dimension", "mean_square_dimension"),
                "float64 eta batch_size",
            ),
            **dict.fromkeys(
                ("dimension", "exponent", "predicted_exponent", "exact_covariance_exponent"),
                "float64 eta batch_size fraction",
            ),
            **_bounded("simulated_exponent", "float64 simulated_dimension"),
            "matrix_exponent": "float64 simulated_dimension",
            "tail_exponent": "float64 simulated_dimension",
            "printed_exponent": "float64 simulated_dimension",
            "simulated_eta": "float64",
            "simulated_batch_size": "int64",
        },
        may_be_non_finite=("simulated_exponent_low", "simulated_exponent_high"),
    ),
    "fit": FileKind(None),
    "checkpoint": FileKind(None),
}


# What a variable is, and its unit; its bounds <name>_low and <name>_high share the unit.
LABELS: dict[str, tuple[str, str]] = {
    "image": ("pixel intensity", "1/255"),
    "label": ("class", "1"),
    "theta": ("parameter of linear regression", "1"),
    "eta": ("learning rate", "1"),
    "batch_size": ("mini-batch size B", "examples"),
    "n_samples": ("size N of the training set", "examples"),
    "dimension": ("dimension d of the parameter", "1"),
    "threshold": ("loss ratio c = L(theta_s)/L(theta*)", "1"),
    "first_passage_step": ("first step with loss above c L(theta*); 0 = censored", "steps"),
    "observed_steps": ("steps that a run was watched", "steps"),
    "max_steps": ("step at which a run is censored", "steps"),
    "diverged": ("loss became infinite or NaN", "1"),
    "initial_loss": ("loss L(theta*) at the start", "1"),
    "training_loss": ("loss over all examples after an epoch", "1"),
    "loss": ("loss over all examples", "1"),
    "noise_strength": ("noise strength N, B times the trace of Eq. (8)", "1"),
    "squared_mean_gradient": ("squared norm of the gradient of the loss", "1"),
    "trace_factor": ("mean over examples of the squared norm of all outputs' gradients", "1"),
    "weighted_trace_factor": ("trace_factor with the examples weighted by their losses", "1"),
    "outputs": ("outputs of the network", "1"),
    "eigenvalue": ("eigenvalue of the Hessian, Eq. (44)", "1"),
    "effective_dimension": ("effective dimension n, Eq. (45)", "1"),
    "gap_dimension": ("eigenvalues before the largest relative gap", "1"),
    "threshold_dimension": ("eigenvalues above a fraction of the largest", "1"),
    "exponent": ("fitted exponent", "1"),
    "exponent_likelihood": ("exponent by maximum likelihood", "1"),
    "predicted_exponent": ("exponent of Eq. (15) or (17)", "1"),
    "mean_first_passage_step": ("mean first-passage step", "steps"),
    "exact_exponent": ("slope of Eq. (12) over the same thresholds", "1"),
    "exponent_above": ("exponent fitted from this threshold upwards", "1"),
    "exact_first_passage_step": ("mean first-passage step by an exact theory", "steps"),
    "exact_error": ("estimated error of exact_first_passage_step", "steps"),
    "simulated_first_passage_step": ("mean first-passage step by plain simulation", "steps"),
    "diffusion_first_passage_step": ("mean first-passage step of Eq. (12)", "steps"),
    "exact_covariance_first_passage_step": (
        "mean first-passage step of Eq. (4) with the exact noise covariance",
        "steps",
    ),
    "coverage": ("fraction of intervals that hold the exact number", "1"),
    "intervals": ("independent intervals", "intervals"),
    "quasi_potential": ("fitted growth of log tau per B/eta", "1"),
    "predicted_quasi_potential": ("quasi-potential of SGD with Gaussian data", "1"),
    "diffusion_quasi_potential": ("quasi-potential of Eq. (12)", "1"),
    "step_size": ("step of Euler and Maruyama's scheme", "1/eta"),
    "exit_rate": ("passages of the plane beyond the saddle per unit of time", "eta"),
    "well": ("double well and noise", "1"),
    "noise_parameter": ("temperature T of Eq. (12) or strength D of GLD", "1"),
    "saddle_loss": ("loss L_s at the saddle", "1"),
    "temperature": ("temperature T = eta h_e*/B", "1"),
    "rate": ("rate of escape", "eta"),
    "ratio_printed": ("rate over Eq. (15), or Kramers' for GLD", "1"),
    "ratio_corrected": ("rate over Eq. (15) with the transverse factor", "1"),
    "ratio_exact": ("rate over the exact one", "1"),
    "exact_ratio_printed": ("exact rate over Eq. (15), or Kramers' for GLD", "1"),
    "transverse_ratio": ("h_i^s/h_i*; 1 in one dimension", "1"),
    "transverse_factor": ("what the prefactor of Eq. (15) lacks, T to 0", "1"),
    "limit_printed": ("ratio_printed extrapolated to T = 0", "1"),
    "limit_corrected": ("ratio_corrected extrapolated to T = 0", "1"),
    "mean_ratio_exact": ("mean of ratio_exact over the temperatures", "1"),
    "series": ("what the wells share: L_s - L* or L_s/L*", "1"),
    "contrast_minimum_loss": ("loss L* at the minima", "1"),
    "contrast_saddle_loss": ("loss L_s at the saddle", "1"),
    "contrast_strength": ("noise strength D of GLD", "1"),
    "contrast_slope_predicted": (
        "slope of Eq. (15) in log(L_s/L*) at one L_s - L*, of GLD in (L_s - L*)/D at one L_s/L*",
        "1",
    ),
    "sgd_log_rate": ("log of the rate of escape of Eq. (12)", "1"),
    "gld_log_rate": ("log of the rate of escape of GLD", "1"),
    "sgd_slope": ("slope of sgd_log_rate in what contrast_slope_predicted names", "1"),
    "gld_slope": ("slope of gld_log_rate in what contrast_slope_predicted names", "1"),
    "line_minimum_loss": ("loss L* at the minima", "1"),
    "sgd_log_rate_exact": ("log of the exact rate of escape of Eq. (12)", "1"),
    "gld_log_rate_exact": ("log of the exact rate of escape of GLD", "1"),
    "matched_log_rate_exact": ("the same for D matched at each minimum", "1"),
    "exact_covariance_quasi_potential": ("quasi-potential of Eq. (4), exact covariance", "1"),
    "data_set": ("index of the finite data set", "1"),
    "data_threshold": ("loss ratio c at which finite data sets were run", "1"),
    "middle": ("geometric mean of neighbouring thresholds c", "1"),
    "data_middle": ("geometric mean of neighbouring thresholds c", "1"),
    "log_steps": ("log of the mean first-passage step", "1"),
    "data_log_steps": ("log of the mean first-passage step on one finite data set", "1"),
    "mean_log_steps": ("mean over data sets of the log of the mean first-passage step", "1"),
    "local_slope": ("d log tau/d log c between neighbouring thresholds", "1"),
    "data_local_slope": ("d log tau/d log c, mean over finite data sets", "1"),
    "log_steps_error": ("relative difference of tau between the two grids of a matrix", "1"),
    "data_quasi_potential": ("limit of (eta/B) log tau at small eta on a finite data set", "1"),
    "quasi_potential_slope": ("d log tau/d log c of B/eta times it, mean over data sets", "1"),
    "weak_noise_slope": ("d log tau/d log c of the quasi-potential (B/eta)(c - 1)", "1"),
    "exponent_share": ("what an approximation adds to the fitted exponent", "1"),
    "time_share": ("what an approximation adds to log tau", "1"),
    "power_law_ratio": ("d log tau/d log c over the exponent of Eq. (15)", "1"),
    "arrhenius_ratio": ("d log tau/dc over B/(eta h)", "1"),
    "power_law_gain": ("log-likelihood a passage that the power law gains on Arrhenius", "1"),
    "fraction": ("dimension over that of Eq. (16)", "1"),
    "critical_dimension": ("critical dimension of Eq. (16)", "1"),
    "lyapunov_dimension": ("dimension at which the Lyapunov exponent is 0", "1"),
    "mean_square_dimension": ("dimension at which the mean square diverges", "1"),
    "simulated_dimension": ("dimension at which SGD was simulated", "1"),
    "simulated_exponent": ("slope of log tau between two thresholds, by splitting", "1"),
    "matrix_exponent": ("slope of log tau between two thresholds, transition matrix", "1"),
    "printed_exponent": ("exponent B/(eta h*) + 1 - d/2 of Eq. (15)", "1"),
    "tail_exponent": ("half of the tail index, the slope at infinite c", "1"),
    "exact_covariance_exponent": ("slope at infinite c of Eq. (4), exact covariance", "1"),
    "direction": ("eigenvector of Eq. (44), by descending eigenvalue", "1"),
    "exact_eigenvalue": ("eigenvalue of the exact Hessian, Eq. (10)", "1"),
    "noise": ("B times the noise covariance of Eq. (8) along an eigenvector", "1"),
    "noise_ratio": ("noise covariance over 2 L/B times the eigenvalue, Eq. (6)", "1"),
    "noise_exponent": ("power of the eigenvalue to which the noise is proportional", "1"),
    "noise_trace": ("trace of B times the noise covariance of Eq. (8)", "1"),
    "curvature_trace": ("trace of the Hessian, Eq. (44)", "1"),
    "trace_ratio": ("trace of the noise covariance over that of Eq. (6)", "1"),
    "gradient_fraction": ("square of the mean gradient over the mean square of gradients", "1"),
    "gradient_fraction_along": ("gradient_fraction of the components along an eigenvector", "1"),
    "residual_ratio": ("last term of Eq. (10) along an eigenvector, over its eigenvalue", "1"),
    "residual_norm": ("spectral norm of the last term of Eq. (10), over h_1", "1"),
    "events": ("runs that passed", "runs"),
    "censored": ("runs that did not pass", "runs"),
    "epoch": ("passes over the training set", "epochs"),
    "eigenvalue_exact": ("eigenvalue of (1/N) sum l C_f, Eq. (7)", "1"),
    "eigenvalue_decoupled": ("eigenvalue of (L/N) sum C_f, Eq. (7)", "1"),
    "rounding_floor": ("machine precision times the largest eigenvalue", "1"),
    "principal_cosine": ("cosine of a principal angle of the leading eigenvectors", "1"),
    "overlap": ("mean squared cosine of the principal angles", "1"),
    "spectral_distance": ("rms log10 ratio of the eigenvalues above the rounding floor", "1"),
    "leading_fraction": ("fraction of the largest eigenvalue above which one is leading", "1"),
    "eigenvalue_factor": ("rms factor between the leading eigenvalues", "1"),
    "distribution_distance": ("Kolmogorov-Smirnov distance of the leading eigenvalues", "1"),
    "relative_distance": ("Frobenius distance of both sides of Eq. (7) over the exact one", "1"),
    "permuted_distance": ("relative distance if losses are permuted among the examples", "1"),
    "correlation": ("correlation of l with tr C_f over the examples", "1"),
    "group_examples": ("examples of a group", "examples"),
    "group_curvature": ("sum of squared output gradients along an eigenvector", "1"),
    "group_trace": ("sum of squared norms of output gradients", "1"),
    "count": ("number n of leading eigenvectors, Eq. (45) rounded", "1"),
    "exit": ("loss ratio c at whose first passage a run is seen", "1"),
    "exit_step": ("first step with loss above c L(theta*); 0 = not seen", "steps"),
    "exit_loss": ("loss over all examples at the first passage", "1"),
    "exit_length": ("norm of theta - theta* at the first passage", "1"),
    "squared_share": ("share of |theta - theta*|^2 along an eigenvector", "1"),
    "loss_share": ("h z^2/2 along an eigenvector over the increase of the loss", "1"),
    "subspace_share": ("share of |theta - theta*|^2 within the leading n eigenvectors", "1"),
    "step": ("step of SGD", "steps"),
    "followed_loss": ("loss over all examples of a run at a step", "1"),
    "lowered_loss": ("that loss after gradient descent from there", "1"),
    "initial_lowered_loss": ("loss after gradient descent from theta*", "1"),
    "drift": ("mean over runs of lowered_loss over initial_lowered_loss, less 1", "1"),
    "exit_overlap": ("mean squared cosine of the leading n eigenvectors with those at theta*", "1"),
    "final_overlap": ("the same at the last step", "1"),
    "exit_sharpness": ("largest eigenvalue at the highest exit over that at theta*", "1"),
    "final_sharpness": ("the same at the last step", "1"),
}


def write(dataset: xr.Dataset, path: str | Path, kind: str) -> None:
    """Write a dataset as NetCDF, whole or not at all; the same dataset gives the same bytes.

    Booleans where the kind wants int8 are stored as 0 and 1. Raises SgdEscapeError when the
    dataset is not of the kind named, or cannot be written (a full disk, a missing folder); the
    file that stood there before is then untouched.
    """
    path = Path(path)
    stored = _labelled(_with_flags_as_int8(dataset, KINDS[kind]).drop_encoding())
    faults = _faults(stored, KINDS[kind])
    if faults:
        raise SgdEscapeError(
            f"{path} was not written, as it would not be a {kind} file: {'; '.join(faults)}. "
            "Check the step that computes it"
        )
    try:
        content = _encoded(stored.assign_attrs({_DIGEST: content_digest(stored)}))
    except (ArithmeticError, TypeError, ValueError) as error:
        raise SgdEscapeError(
            f"{path} was not written, as NetCDF cannot hold its content: {error}. "
            "Give text, numbers or lists of numbers as attributes"
        ) from error
    except (OSError, RuntimeError) as error:
        raise SgdEscapeError(
            f"{path} was not written, as it could not be prepared in the folder for temporary "
            f"files: {error}. Free some space there, or set TMPDIR to a folder that has some, "
            "then run the same command again"
        ) from error
    write_bytes_atomically(path, content + _seal(content))


def read(path: str | Path, kind: str) -> xr.Dataset:
    """Read a whole NetCDF file into memory; integers stay integers and nothing is masked.

    Raises SgdEscapeError when the file is missing, damaged, edited, or not of the kind named.
    """
    path = Path(path)
    content = _unsealed(path)
    try:
        dataset = _decoded(content)
        digest = content_digest(dataset)
    # Whatever the library makes of a strange file, it is the file that is at fault.
    except Exception as error:
        raise SgdEscapeError(
            f"{path} cannot be decoded as NetCDF ({type(error).__name__}: {error}). {RUN_AGAIN}"
        ) from error
    recorded = dataset.attrs.get(_DIGEST, "nothing")
    if recorded != digest:
        raise SgdEscapeError(
            f"{path} was edited: its content has SHA-256 {digest}, recorded is {recorded}. "
            f"{RUN_AGAIN}"
        )
    faults = _faults(dataset, KINDS[kind])
    if faults:
        raise SgdEscapeError(f"{path} is not a {kind} file: {'; '.join(faults)}. {RUN_AGAIN}")
    return dataset


def attributes(
    config: Mapping[str, Any], *, seed: int | None = None, equations: str = ""
) -> dict[str, str | int]:
    """Attributes of a file, from config and code alone, so that the same run gives the same file.

    `config` is the part of the configuration the file depends on, kept as JSON with sorted keys;
    `equations` names the paper's equations, e.g. "(15), (45)". What is not given is left out.
    """
    config_json = json.dumps(config, sort_keys=True, ensure_ascii=False)
    named: dict[str, str | int] = {
        "package_version": __version__,
        "config": config_json,
        "config_sha256": hashlib.sha256(config_json.encode()).hexdigest(),
    }
    if seed is not None:
        named["seed"] = seed
    if equations:
        named["equations"] = equations
    return named


def content_digest(dataset: xr.Dataset) -> str:
    """SHA-256 of all that a dataset says: names, dims, dtypes, shapes, values and attributes.

    Independent of order, byte order, compression and of the digest attribute itself.
    """
    digest = hashlib.sha256(_attributes_json(dataset.attrs).encode())
    for name in sorted(map(str, dataset.variables)):
        variable = dataset.variables[name]
        is_text = variable.dtype.kind == "U"
        dtype = variable.dtype.newbyteorder("<")
        header = [name, variable.dims, "text" if is_text else dtype.str, variable.shape]
        digest.update(json.dumps(header).encode())
        digest.update(_attributes_json(variable.attrs).encode())
        if is_text:
            digest.update(json.dumps(variable.values.tolist()).encode())
        else:
            digest.update(np.asarray(variable.values, dtype=dtype, order="C").tobytes())
    return digest.hexdigest()


def _seal(content: bytes) -> bytes:
    return _SEAL + hashlib.sha256(content).hexdigest().encode()


def _unsealed(path: Path) -> bytes:
    # A pipe or a device could be read for ever.
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise SgdEscapeError(f"{path} is no plain file. {RUN_AGAIN}")
    try:
        sealed = path.read_bytes()
    except OSError as error:
        raise SgdEscapeError(
            f"{path} cannot be read: {error.strerror}. Run the command that makes it first"
        ) from error
    content, seal = sealed[:-_SEAL_BYTES], sealed[-_SEAL_BYTES:]
    if not seal.startswith(_SEAL):
        raise SgdEscapeError(
            f"{path} does not end with its checksum: it was truncated, edited or is no file of "
            f"ours. {RUN_AGAIN}"
        )
    if seal != _seal(content):
        raise SgdEscapeError(
            f"{path} was damaged or edited: its checksum differs from the one at its end. "
            f"{RUN_AGAIN}"
        )
    return content


def _encoded(dataset: xr.Dataset) -> bytes:
    encoding = {str(name): _encoding(variable) for name, variable in dataset.variables.items()}
    # Not in place, where a full disk would be a nameless HDF error that leaves the file open;
    # not in memory, where the library puts the time of day into the file.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "content.nc"
        dataset.to_netcdf(path, engine="netcdf4", encoding=encoding)
        return path.read_bytes()


def _decoded(content: bytes) -> xr.Dataset:
    with xr.open_dataset(
        content, engine="netcdf4", mask_and_scale=False, decode_times=False, decode_timedelta=False
    ) as dataset:
        return dataset.load()


def _encoding(variable: xr.Variable) -> dict[str, Any]:
    if variable.dtype.kind == "U":
        return {}
    if variable.size == 0 or variable.ndim == 0:
        return {"_FillValue": None}
    row_bytes = variable.nbytes // variable.shape[0]
    rows = min(variable.shape[0], max(1, _CHUNK_BYTES // row_bytes))
    return {
        "_FillValue": None,
        "zlib": True,
        "complevel": 4,
        "shuffle": True,
        "chunksizes": (rows, *variable.shape[1:]),
    }


def _labelled(dataset: xr.Dataset) -> xr.Dataset:
    labelled = dataset.copy()
    for name in map(str, dataset.variables):
        stem = name.removesuffix("_low").removesuffix("_high")
        if stem in LABELS:
            long_name, units = LABELS[stem]
            bound = name.removeprefix(stem).replace("_", ", ").replace("low", "lower bound")
            bound = bound.replace("high", "upper bound")
            label = {"long_name": long_name + bound, "units": units}
            labelled[name].attrs = label | labelled[name].attrs
    return labelled


def _with_flags_as_int8(dataset: xr.Dataset, kind: FileKind) -> xr.Dataset:
    flags = [
        name
        for name, layout in (kind.variables or {}).items()
        if layout.startswith("int8") and name in dataset and dataset[name].dtype == bool
    ]
    return dataset.assign({name: dataset[name].astype(np.int8) for name in flags})


def _faults(dataset: xr.Dataset, kind: FileKind) -> list[str]:
    absent = [
        f"attribute {name} is missing" for name in kind.attributes if name not in dataset.attrs
    ]
    if kind.variables is None:
        return absent + _faults_of_free_set(dataset)
    expected, found = set(kind.variables), {str(name) for name in dataset.variables}
    return [
        *absent,
        *(f"variable {name} is missing" for name in sorted(expected - found)),
        *(f"variable {name} does not belong there" for name in sorted(found - expected)),
        *(
            fault
            for name in sorted(expected & found)
            if (
                fault := _fault_of_variable(
                    dataset, name, kind.variables[name], name in kind.may_be_non_finite
                )
            )
        ),
    ]


def _faults_of_free_set(dataset: xr.Dataset) -> list[str]:
    if not dataset.data_vars:
        return ["it holds no variable"]
    return [
        f"variable {name} is {variable.dtype}, needed are numbers or text"
        for name, variable in dataset.variables.items()
        if variable.dtype.kind not in "biufU"
    ]


def _fault_of_variable(
    dataset: xr.Dataset, name: str, layout: str, may_be_non_finite: bool
) -> str | None:
    variable = dataset.variables[name]
    dtype, *dims = layout.split()
    # Text has as many dtypes as lengths.
    of_dtype = variable.dtype.kind == "U" if dtype == "text" else variable.dtype == np.dtype(dtype)
    if list(variable.dims) != dims or not of_dtype:
        found = " ".join([str(variable.dtype), *map(str, variable.dims)])
        return f"variable {name} is '{found}', needed is '{layout}'"
    if variable.dtype.kind == "f" and not may_be_non_finite:
        count = int(np.sum(~np.isfinite(variable.values)))
        if count:
            return f"variable {name} holds {count} values that are not finite"
    return None


def _attributes_json(attrs: Mapping[Any, Any]) -> str:
    kept = {str(name): _plain(value) for name, value in attrs.items() if name != _DIGEST}
    return json.dumps(kept, sort_keys=True)


def _plain(value: Any) -> Any:
    # NetCDF hands back Python numbers as NumPy's, and a list of one as its element.
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple) and len(value) == 1:
        return value[0]
    return value
