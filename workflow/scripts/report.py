from prologue import begin

begin(snakemake)

import csv
import io
import json
from pathlib import Path

import yaml

from sgd_escape import report, storage
from sgd_escape.claims import from_csv
from sgd_escape.files import read_with_checksum, write_bytes_atomically

files, config = snakemake.input, snakemake.params.config
linear_regression = storage.read(files.fit_linear_regression, "fit")
network = storage.read(files.fit_network, "fit")
provenance = json.loads(read_with_checksum(files.provenance))
page = report.render(
    files.template,
    claims=from_csv(read_with_checksum(files.claims).decode()),
    figures=report.embed_figures(
        {Path(path).stem: Path(path).read_bytes() for path in files.figures},
        {Path(path).stem: Path(path).read_text("utf-8") for path in files.captions},
    ),
    sizes=report.compare_sizes(config, yaml.safe_load(Path(files.paper).read_text("utf-8"))),
    passage_counts=[
        *report.count_passages("linear regression", linear_regression),
        *report.count_passages("network", network),
    ],
    outcomes=list(csv.DictReader(io.StringIO(read_with_checksum(files.outcomes).decode()))),
    precisions=[
        report.Precision.of(Path(path).stem, json.loads(read_with_checksum(path)))
        for path in files.assessments
    ],
    outliers=[report.count_outliers(storage.read(path, "hessian")) for path in files.hessian],
    minimum={name: network[name].item() for name in ["seed", "curvature", "effective_dimension"]},
    config=config,
    versions=provenance["versions"],
    run_times=report.collect_run_times(snakemake.params.benchmarks),
)
write_bytes_atomically(snakemake.output[0], page.encode())
