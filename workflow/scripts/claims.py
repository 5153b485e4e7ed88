from prologue import begin

begin(snakemake)

from pathlib import Path

import yaml

from sgd_escape import storage
from sgd_escape.claims import Datasets, evaluate, load_claims, to_csv
from sgd_escape.files import write_with_checksum

files, config = snakemake.input, snakemake.params.config
seeds, epochs = config["network"]["pretraining"]["seeds"], config["decoupling"]["epochs"]
datasets = Datasets(
    storage.read(files.stationary, "stationary"),
    storage.read(files.fit_linear_regression, "fit"),
    storage.read(files.fit_network, "fit"),
    {s: storage.read(path, "pretrained") for s, path in zip(seeds, files.pretrained, strict=True)},
    {s: storage.read(path, "hessian") for s, path in zip(seeds, files.hessian, strict=True)},
    storage.read(files.fit_noise, "fit"),
    {e: storage.read(path, "decoupling") for e, path in zip(epochs, files.decoupling, strict=True)},
    {s: storage.read(path, "alignment") for s, path in zip(seeds, files.alignment, strict=True)},
    storage.read(files.fit_collapse, "fit"),
    {s: storage.read(path, "escape") for s, path in zip(seeds, files.escape, strict=True)},
    {Path(path).stem: storage.read(path, Path(path).stem) for path in files.laboratory},
)
paper = yaml.safe_load(Path(files.paper).read_text(encoding="utf-8"))
claims = evaluate(load_claims(files.claims), datasets, config, paper)
write_with_checksum(snakemake.output[0], to_csv(claims).encode())
