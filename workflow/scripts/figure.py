from prologue import begin

begin(snakemake)

from sgd_escape import (
    double_well_figures,
    figures,
    laboratory_figures,
    ladder_figures,
    network_figures,
    noise_figures,
    storage,
)
from sgd_escape.figure_style import encoded
from sgd_escape.files import write_bytes_atomically

MODULES = [
    figures,
    noise_figures,
    network_figures,
    laboratory_figures,
    ladder_figures,
    double_well_figures,
]
# By the beginning of a path, the first that fits.
KINDS = {
    "results/decoupling/": "decoupling",
    "results/fits/": "fit",
    "results/linear_regression/stationary": "stationary",
    "results/laboratory/double_well": "double_well",
    "results/laboratory/critical_dimension": "critical_dimension",
    "results/laboratory/ladder": "ladder",
    "results/laboratory/regime_map": "regime_map",
    "results/laboratory/splitting": "splitting",
    "results/laboratory/weak_noise": "weak_noise",
    "results/network/escape": "escape",
    "results/network/hessian": "hessian",
    "results/network/pretrained": "pretrained",
    "results/noise/alignment": "alignment",
    "results/noise/": "noise",
}


def read(path):
    return storage.read(path, next(kind for start, kind in KINDS.items() if path.startswith(start)))


name, picture_format = snakemake.params.figure, snakemake.wildcards.format
draw = next(getattr(module, name) for module in MODULES if hasattr(module, name))
picture = encoded(draw(*map(read, snakemake.input.data)), picture_format)
write_bytes_atomically(snakemake.output[0], picture)
