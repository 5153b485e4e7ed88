import ast
import json
import os.path
import sys

from sgd_escape.config import load_schema, validate
from sgd_escape.errors import SgdEscapeError
from sgd_escape.files import check_folder, read_with_checksum

PACKAGE = ROOT / "src" / "sgd_escape"
SCRIPTS = ROOT / "workflow" / "scripts"
ENVIRONMENT = str(ROOT / "environment.yml")
# On what keys of a first-passage study it depends how many runs it has.
PRECISION = ["runs", "fit_range", "exponent_width", "max_runs"]

try:
    validate(config, load_schema(ROOT / "workflow" / "schemas" / "config.schema.yaml"))
    # Snakemake writes into TMPDIR before a job can say that it is full.
    places = [".", "results", os.environ.get("TMPDIR", ".")]
    for folder in filter(os.path.exists, places):
        check_folder(folder)
except SgdEscapeError as error:
    sys.exit(f"error: {error}")


wildcard_constraints:
    seed=r"\d+",
    d=r"\d+",
    eta=r"[0-9.e+-]+",
    B=r"\d+",
    first=r"\d+",
    last=r"\d+",
    epoch=r"\d+",
    format="pdf|png",


def local_imports(path):
    """The modules of the package, and of the scripts' folder, that a Python file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names = [
                node.module,
                *(f"{node.module}.{alias.name}" for alias in node.names),
            ]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            package, _, module = name.partition(".")
            folder, stem = (
                (PACKAGE, module or "__init__")
                if package == "sgd_escape"
                else (SCRIPTS, name)
            )
            if (folder / f"{stem}.py").exists():
                yield folder / f"{stem}.py"


def sources(script):
    """A script and what it imports from this repository, all the way down.

    Snakemake watches a script but not its imports: as inputs they make an edited module rerun
    exactly the rules that depend on it. Checkpoints depend on all of it too.
    """
    found, waiting = {SCRIPTS / script}, [SCRIPTS / script]
    while waiting:
        new = set(local_imports(waiting.pop())) - found
        found |= new
        waiting += new
    return sorted(map(str, found))


def spelled(number):
    """A learning rate as it stands in file names: 1 and 1.0 are the same."""
    return repr(float(number))


def shards(folder, case, study, rounds=1):
    """The shard files of one case: every shard holds a contiguous range of run indices.

    Where runs are added, each round has as many again, in shards of its own.
    """
    runs, count = study["runs"], study["shards"]
    bounds = [runs * shard // count for shard in range(count * rounds + 1)]
    return [
        f"{folder}/shards/{case}_runs{first}-{last - 1}.nc"
        for first, last in zip(bounds, bounds[1:])
    ]


def noise_study(noise, wildcards):
    """What the training of one network with one loss depends on, and nothing of the others."""
    network = noise[wildcards.architecture]
    of_each_loss = {"learning_rate": "learning_rates", "epochs": "epochs"}
    return (
        {key: network[key] for key in network if key not in of_each_loss.values()}
        | {key: network[name][wildcards.loss] for key, name in of_each_loss.items()}
        | {
            key: noise[key]
            for key in ["batch_size", "sampling", "seed", "trace_factors"]
        }
    )


def decision(path):
    """What a checkpoint decided, from its JSON file."""
    try:
        return json.loads(read_with_checksum(path))
    except SgdEscapeError as error:
        sys.exit(f"error: {error}")


def assessments(folder, case, study):
    """Looks at the interval of one case's exponent, a file for each round of runs so far.

    Snakemake comes back here after each, and the last one says why no runs are added.
    """
    paths = []
    while study["exponent_width"] is not None:
        assessed = checkpoints.assess_precision.get(
            study=folder.removeprefix("results/"), case=case, rounds=len(paths) + 1
        )
        paths.append(assessed.output[0])
        if decision(paths[-1])["reason_to_stop"]:
            break
    return paths


def precision(study):
    """What the `assessments` of one case depend on.

    A parameter of its gathering too: Snakemake makes no missing checkpoint for the sake of a file
    that is there, but it looks again where that file has to be made anew.
    """
    if study["exponent_width"] is None:
        return None
    of_case = {key: study[key] for key in PRECISION}
    return {"seed": config["seed"], "fits": config["fits"], "study": of_case}


def gathering_sources(study):
    """What gathers the shards of one case and, where runs are added, decides how many."""
    decides = [] if study["exponent_width"] is None else sources("assess_precision.py")
    return sorted({*sources("gather_first_passage.py"), *decides})


def all_shards(folder, case, study):
    """The shards of one case in all the rounds that its precision asks for."""
    rounds = max(len(assessments(folder, case, study)), 1)
    return shards(folder, case, study, rounds)


def reference_seed():
    """The seed whose largest Hessian eigenvalue is nearest to the paper's."""
    return decision(checkpoints.choose_reference_seed.get().output[0])["seed"]


def by_reference_seed(name):
    """The files of all seeds, the reference seed's first: figures show its intervals."""
    seeds = sorted(
        config["network"]["pretraining"]["seeds"],
        key=lambda seed: seed != reference_seed(),
    )
    return [f"results/{name}_seed{seed}.nc" for seed in seeds]


def in_study_of_the_paper(wildcards):
    """Whether Fig. 3(c) shows this seed and this (eta, B)."""
    study = config["network"]["first_passage"]
    return (
        wildcards.eta in map(spelled, study["learning_rates"])
        and int(wildcards.B) in study["batch_sizes"]
        and int(wildcards.seed) == reference_seed()
    )


def passage_runs(wildcards):
    """How many runs one seed and one (eta, B) have, and their shards.

    The collapse has fewer runs, but takes the file of the paper's study where that has one.
    """
    collapse = config["network"]["collapse"]
    listed = [
        (spelled(case["learning_rate"]), str(case["batch_size"]))
        for case in collapse["cases"]
    ]
    if (wildcards.eta, wildcards.B) in listed and not in_study_of_the_paper(wildcards):
        return {"runs": collapse["runs"], "shards": 1, "exponent_width": None}
    return config["network"]["first_passage"]


def multiplications(network):
    """How many one example costs on its way forward through a network of Figs. 2 and 5."""
    if "hidden_units" in network:
        widths = [28**2, *network["hidden_units"], 10]
        return sum(before * after for before, after in zip(widths, widths[1:]))
    total, side, channels = 0, 32, 3
    for filters in network["filters"]:
        inputs = channels + (network["layers_per_stack"] - 1) * filters
        total += side**2 * 9 * inputs * filters
        side, channels = side // 2, filters
    return total + side**2 * channels * 10


def training_minutes(noise, wildcards):
    """One for 10^11 multiplications, for which training and measuring took half of one."""
    study = noise_study(noise, wildcards)
    examples = study["n_samples"] * study["epochs"]
    return 60 + multiplications(study) * examples // 10**11


def doubling(amount):
    """A resource of which a job gets twice as much each time that it is tried again.

    An amount that depends on the job is a function of its wildcards.
    """

    def resource(wildcards, attempt):
        first = amount(wildcards) if callable(amount) else amount
        return first * 2 ** (attempt - 1)

    return resource


def network_passages():
    """The first-passage files of Fig. 3(c)."""
    return expand(
        "results/network/first_passage_seed{seed}_eta{eta}_B{B}.nc",
        seed=reference_seed(),
        eta=map(spelled, NETWORK["first_passage"]["learning_rates"]),
        B=NETWORK["first_passage"]["batch_sizes"],
    )


def last_assessments():
    """Why runs ceased to be added, for each case of which a precision was asked."""
    cases = [
        *((path, REGRESSION) for path in REGRESSION_PASSAGES),
        *((path, NETWORK["first_passage"]) for path in network_passages()),
    ]
    found = [
        assessments(str(Path(path).parent), Path(path).stem, study)
        for path, study in cases
    ]
    return [paths[-1] for paths in found if paths]
