from prologue import begin

begin(snakemake)

import io

from sgd_escape import figures, storage

KINDS = {"fig3a": "stationary", "fig6": "hessian", "pretraining": "pretrained"}

name, picture_format = snakemake.wildcards.figure, snakemake.wildcards.format
datasets = [storage.read(path, KINDS.get(name, "fit")) for path in snakemake.input.data]
content = io.BytesIO()
figures.save(getattr(figures, name)(*datasets), content, picture_format)
storage.write_bytes_atomically(snakemake.output[0], content.getvalue())
