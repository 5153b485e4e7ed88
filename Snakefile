import sys
from pathlib import Path

from snakemake.utils import min_version

from sgd_escape.config_files import read_config_file
from sgd_escape.errors import SgdEscapeError
from sgd_escape.files import hold_lock, tidy

min_version("9.20")

ROOT = Path(workflow.basedir)

# Snakemake tells neither the file nor the line, and takes the last of two equal keys.
try:
    for path in [ROOT / "config.yaml", *workflow.configfiles]:
        read_config_file(path)
except SgdEscapeError as error:
    sys.exit(f"error: {error}")


configfile: str(ROOT / "config.yaml")


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/linear_regression.smk"
include: "workflow/rules/network.smk"
include: "workflow/rules/precision.smk"
include: "workflow/rules/noise.smk"
include: "workflow/rules/decoupling.smk"
include: "workflow/rules/laboratory.smk"
include: "workflow/rules/fits.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/report.smk"


report: "workflow/report/workflow.rst"


# A lock that dies with its process: after a kill the same command goes on, where Snakemake's own
# lock, which the profiles turn off, would ask to be removed by hand.
onstart:
    try:
        hold_lock(".snakemake/running")
    except SgdEscapeError as error:
        sys.exit(f"error: {error}")
    made_from = [ROOT / name for name in ["src", "workflow", "config"]]
    tidy("results", ".cache", *made_from)


onerror:
    print(
        "The run stopped before its end, for the reasons above; a job that died with SIGKILL was "
        "killed from outside, perhaps as memory ran out. To go on from what is finished, run the "
        "same command again.",
        file=sys.stderr,
    )


rule all:
    default_target: True
    input:
        expand(
            "results/figures/{figure}.{format}", figure=FIGURES, format=["pdf", "png"]
        ),
        "results/claims.csv",
        "results/outcomes.csv",
        "results/report.html",
        "results/provenance.json",
