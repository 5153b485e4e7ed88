from prologue import begin

begin(snakemake)

from sgd_escape import figures, noise_figures, storage
from sgd_escape.figure_style import encoded

KINDS = {
    "fig1": "decoupling",
    "fig3a": "stationary",
    "fig6": "hessian",
    "pretraining": "pretrained",
}

name, picture_format = snakemake.params.figure, snakemake.wildcards.format
datasets = [storage.read(path, KINDS.get(name, "fit")) for path in snakemake.input.data]
draw = getattr(noise_figures if hasattr(noise_figures, name) else figures, name)
picture = encoded(draw(*datasets), picture_format)
storage.write_bytes_atomically(snakemake.output[0], picture)
