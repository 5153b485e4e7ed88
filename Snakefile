from pathlib import Path

from snakemake.utils import min_version

min_version("9.20")

ROOT = Path(workflow.basedir)


configfile: str(ROOT / "config.yaml")


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/linear_regression.smk"
include: "workflow/rules/network.smk"
include: "workflow/rules/fits.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/report.smk"


report: "workflow/report/workflow.rst"


rule all:
    default_target: True
    input:
        expand("results/figures/{figure}.{format}", figure=FIGURES, format=["pdf", "png"]),
        "results/claims.csv",
        "results/report.html",
        "results/provenance.json",
