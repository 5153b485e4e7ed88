from prologue import begin

begin(snakemake)

from sgd_escape import figures, storage
from sgd_escape.figure_style import encoded

KINDS = {"fig3a": "stationary", "fig6": "hessian", "pretraining": "pretrained"}

name, picture_format = snakemake.params.figure, snakemake.wildcards.format
datasets = [storage.read(path, KINDS.get(name, "fit")) for path in snakemake.input.data]
picture = encoded(getattr(figures, name)(*datasets), picture_format)
storage.write_bytes_atomically(snakemake.output[0], picture)
