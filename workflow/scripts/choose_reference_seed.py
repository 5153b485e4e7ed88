from prologue import begin

begin(snakemake)

import json

from sgd_escape import storage
from sgd_escape.files import write_with_checksum

seeds = snakemake.params.seeds
leading = [
    float(storage.read(path, "hessian")["eigenvalue"][0]) for path in snakemake.input.hessian
]
distance = {
    seed: abs(value - snakemake.params.curvature)
    for seed, value in zip(seeds, leading, strict=True)
}
chosen = {
    "seed": min(distance, key=distance.get),
    "largest_eigenvalue": dict(zip(seeds, leading, strict=True)),
}
write_with_checksum(snakemake.output[0], json.dumps(chosen, indent=2).encode())
