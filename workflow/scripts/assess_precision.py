from prologue import begin

begin(snakemake)

import json

from first_passage_files import gathered
from fits import exponent_so_far

from sgd_escape.estimation import Bootstrap, reason_to_stop
from sgd_escape.files import write_with_checksum

params, study = snakemake.params, snakemake.params.study
record = gathered(snakemake.input.shards)
runs = record.sizes["run"]
bootstrap = Bootstrap(**params.fits, seed=params.seed)
exponent = exponent_so_far(record, study["fit_range"], bootstrap)
assessment = {
    "runs": runs,
    "exponent": [float(bound) for bound in exponent] if exponent else None,
    "exponent_width": study["exponent_width"],
    "reason_to_stop": reason_to_stop(
        exponent,
        study["exponent_width"],
        runs_after_next_round=runs + study["runs"],
        max_runs=study["max_runs"],
    ),
}
write_with_checksum(snakemake.output[0], json.dumps(assessment, indent=2).encode())
