"""The pipeline itself, on a study small enough to run several times."""

import copy
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml
from snakemake.utils import update_config

from sgd_escape import storage
from sgd_escape.outcomes import outcomes_of

ROOT = Path(__file__).parents[1]
STUDY = yaml.safe_load((ROOT / "tests" / "system" / "study.yaml").read_text(encoding="utf-8"))
DATA = [Path(f"results/data/{name}.nc") for name in ["mnist", "fashion_mnist", "cifar10"]]
# What kind of file a path begins with, the first that fits.
KINDS = {
    "results/data/cifar10": "color_dataset",
    "results/data/": "dataset",
    "results/decoupling/epoch": "decoupling",
    "results/decoupling/network": "network",
    "results/fits/": "fit",
    "results/laboratory/coverage": "coverage",
    "results/laboratory/double_well": "double_well",
    "results/laboratory/critical_dimension": "critical_dimension",
    "results/laboratory/ladder": "ladder",
    "results/laboratory/regime_map": "regime_map",
    "results/laboratory/splitting": "splitting",
    "results/laboratory/weak_noise": "weak_noise",
    "results/linear_regression/stationary_samples": "stationary_samples",
    "results/linear_regression/stationary": "stationary",
    "results/linear_regression/": "first_passage",
    "results/network/pretrained": "pretrained",
    "results/network/hessian": "hessian",
    "results/network/first_passage": "first_passage",
    "results/network/escape": "escape",
    "results/noise/alignment": "alignment",
    "results/noise/": "noise",
}
LABORATORY = ["splitting", "coverage", "weak_noise", "ladder", "regime_map"]
LABORATORY += ["critical_dimension", "double_well"]
TRAININGS = ["fc_mean_square", "fc_cross_entropy", "cnn_mean_square", "cnn_cross_entropy"]
ONE_SHARD = {
    "linear_regression": {"first_passage": {"shards": 1}},
    "network": {"first_passage": {"shards": 1}},
}


def command(root: Path, folder: Path, *arguments: str, cores: int = 2) -> list[str]:
    return [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(root / "Snakefile")),
        *("--workflow-profile", str(root / "profiles" / "default")),
        *("--cores", str(cores), "--directory", str(folder)),
        *(*arguments, "--configfile", "study.yaml"),
    ]


def snakemake(
    root: Path, folder: Path, *arguments: str, cores: int = 2
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(root, folder, *arguments, cores=cores),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def new_folder(parent: Path, name: str, *overlays: dict) -> Path:
    """A working directory with a study of its own; data and compiled programs, if there are any."""
    folder = parent / name
    folder.mkdir()
    study = copy.deepcopy(STUDY)
    for overlay in overlays:
        update_config(study, overlay)
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    for data in DATA:
        if (parent / "finished" / data).exists():
            (folder / data).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(parent / "finished" / data, folder / data)
    if (programs := parent / "finished" / ".cache" / "jax").exists():
        shutil.copytree(programs, folder / ".cache" / "jax")
    return folder


def contents(folder: Path) -> dict[str, str]:
    """The arrays of every file between rules but the shards, as digests."""
    digests = {}
    for path in sorted(folder.glob("results/*/*.nc")):
        name = str(path.relative_to(folder))
        kind = next(kind for start, kind in KINDS.items() if name.startswith(start))
        digests[name] = storage.content_digest(storage.read(path, kind).drop_attrs(deep=False))
    return digests


def rules_to_run(output: str) -> dict[str, int]:
    """The job counts of a dry run, without the rule that only collects."""
    lines = [line.split() for line in output.splitlines()]
    jobs = {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[1].isdigit()}
    # Lines such as "priority: 20" look alike.
    return {
        rule: count
        for rule, count in jobs.items()
        if rule not in ("all", "total") and not rule.endswith(":")
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the workflow whose files the tests may edit."""
    copy = tmp_path_factory.mktemp("workflow")
    for name in ["Snakefile", "config.yaml", "environment.yml"]:
        shutil.copy2(ROOT / name, copy)
    for name in ["workflow", "config", "profiles", "src"]:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture(scope="module")
def finished(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole study, run once with two shards on two cores."""
    folder = new_folder(tmp_path_factory.mktemp("runs"), "finished")
    run = snakemake(root, folder)
    assert run.returncode == 0, run.stderr[-4000:]
    return folder


def test_one_command_makes_every_file_of_the_contract(finished: Path) -> None:
    names = {str(path.relative_to(finished / "results")) for path in finished.glob("results/**/*")}
    wanted = {str(data.relative_to("results")) for data in DATA}
    wanted |= {f"fits/{study}.nc" for study in ["linear_regression", "network", "noise"]}
    wanted |= {"fits/network_collapse.nc", "network/escape_seed0.nc", "network/escape_seed1.nc"}
    wanted |= {"linear_regression/stationary.nc"}
    wanted |= {f"linear_regression/first_passage_d{d}_eta0.1_B1.nc" for d in [1, 5, 10]}
    wanted |= {f"network/{kind}_seed{s}.nc" for kind in ["pretrained", "hessian"] for s in [0, 1]}
    wanted |= {f"noise/{name}.nc" for name in ["alignment_seed0", "alignment_seed1", *TRAININGS]}
    wanted |= {"fits/network_collapse.nc", "network/escape_seed0.nc", "network/escape_seed1.nc"}
    wanted |= {f"laboratory/{study}.nc" for study in LABORATORY}
    drawn = [*(f"fig{n}" for n in ["1", "2", "3a", "3b", "3c", "4", "5", "6"]), "alignment"]
    drawn += ["collapse", "escape_direction", "drift", "double_well", "contrast", "weak_noise"]
    drawn += ["splitting", "ladder", "error_budget", "regime_map", "critical_dimension"]
    drawn += ["collapse", "escape_direction", "drift"]
    wanted |= {f"figures/{name}.{f}" for name in drawn for f in ["pdf", "png"]}
    wanted |= {f"decoupling/{name}epoch{e}.nc" for name in ["", "network_"] for e in [0, 3]}
    wanted |= {"claims.csv", "outcomes.csv", "report.html", "provenance.json"}
    assert wanted <= names
    assert not [name for name in names if name.endswith(".tmp")]


def test_what_files_name_as_outcomes_stands_in_the_table_and_in_the_report(finished: Path) -> None:
    """In this study one of three learning rates is beyond 2/h_1."""
    named = {}
    for path in finished.glob("results/**/*.nc"):
        name = str(path.relative_to(finished))
        if "/shards/" not in name and "/parts/" not in name:
            found = outcomes_of(storage.read(path, "fit"))
            named |= {(name, outcome): str(count) for outcome, count in found.items()}
    with (finished / "results/outcomes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["file"], row["outcome"]): row["count"] for row in rows} == named
    network = storage.read(finished / "results/fits/network.nc", "fit")
    seed = json.loads((finished / "results/network/reference_seed.json").read_text())["seed"]
    hessian = storage.read(finished / f"results/network/hessian_seed{seed}.nc", "hessian")
    unstable = int((network["eta"] * float(hessian["eigenvalue"][0]) > 2).sum())
    assert unstable > 0
    assert named["results/fits/network.nc", "unstable_learning_rates"] == str(unstable)
    page = (finished / "results/report.html").read_text(encoding="utf-8")
    for row in rows:
        assert f"<td>{row['file']}</td><td>{row['outcome'].replace('_', ' ')}</td>" in page


def test_a_finished_run_has_nothing_to_do(root: Path, finished: Path) -> None:
    dry_run = snakemake(root, finished, "-n")
    assert "Nothing to be done" in dry_run.stdout + dry_run.stderr


def test_no_run_of_the_network_is_made_twice(finished: Path) -> None:
    """The collapse takes the runs of the reference seed where Fig. 3(c) has its (η, B)."""
    reference = json.loads((finished / "results/network/reference_seed.json").read_text())["seed"]
    for seed in [0, 1]:
        for eta, batch_size, of_the_paper in [("0.03", 10, True), ("0.04", 5, False)]:
            name = f"first_passage_seed{seed}_eta{eta}_B{batch_size}"
            record = storage.read(finished / f"results/network/{name}.nc", "first_passage")
            runs = 4 if of_the_paper and seed == reference else 5
            assert record["run"].values.tolist() == list(range(runs))
            shards = (finished / "results/network/shards").glob(f"{name}_*")
            assert len(list(shards)) == (2 if runs == 4 else 1)


def test_snakemake_writes_its_own_report(root: Path, finished: Path) -> None:
    run = snakemake(root, finished, "--report", "snakemake-report.html")
    assert run.returncode == 0, run.stderr[-4000:]
    assert "Schematic of the escape" in (finished / "snakemake-report.html").read_text()


def test_deleting_a_figure_runs_one_rule(root: Path, finished: Path) -> None:
    figure = finished / "results/figures/fig3c.pdf"
    content = figure.read_bytes()
    figure.unlink()
    dry_run = snakemake(root, finished, "-n")
    assert rules_to_run(dry_run.stdout + dry_run.stderr) == {"draw_fig3c": 1}
    left_by_a_kill = figure.with_name(".fig3c.pdf.0123abcd.tmp")
    left_by_a_kill.write_bytes(content[:100])
    assert snakemake(root, finished, "results/figures/fig3c.pdf").returncode == 0
    assert figure.read_bytes() == content
    assert not left_by_a_kill.exists()


def test_an_edited_module_reruns_exactly_what_imports_it(root: Path, finished: Path) -> None:
    module = root / "src" / "sgd_escape" / "escape_theory.py"
    original = module.read_text()
    module.write_text(original + "\n# edited\n")
    try:
        dry_run = snakemake(root, finished, "-n")
    finally:
        module.write_text(original)
    jobs = rules_to_run(dry_run.stdout + dry_run.stderr)
    assert {"fit_stationary", "fit_linear_regression", "fit_network"} <= set(jobs)
    assert {rule for rule in jobs if not rule.startswith("draw_")} <= {
        *("fit_stationary", "fit_linear_regression", "fit_network", "fit_collapse"),
        *("exit_rates", "double_well", "weak_noise", "ladder", "regime_map", "critical_dimension"),
        *("claims", "collect_outcomes", "provenance", "write_report"),
    }
    assert not {"draw_fig4", "draw_fig6", "draw_pretraining"} & set(jobs)


def test_data_decoded_anew_reruns_what_is_missing_behind_it_in_the_same_run(
    root: Path, finished: Path
) -> None:
    module = root / "src" / "sgd_escape" / "datasets.py"
    hessian = finished / "results/network/hessian_seed0.nc"
    original = module.read_text()
    module.write_text(original + "\n# edited\n")
    aside = hessian.rename(hessian.with_suffix(".aside"))
    try:
        dry_run = snakemake(root, finished, "-n", "results/network/hessian_seed0.nc")
    finally:
        module.write_text(original)
        aside.rename(hessian)
    jobs = rules_to_run(dry_run.stdout + dry_run.stderr)
    assert jobs == {"download": 1, "pretrain": 1, "hessian_outliers": 1}


def test_the_inputs_of_a_job_hold_its_own_script_so_that_a_checkpoint_depends_on_it(
    root: Path, finished: Path
) -> None:
    dry_run = snakemake(root, finished, "-n", "--forcerun", "measure_noise", "train_decoupling")
    for script in ["measure_noise.py", "train_decoupling.py"]:
        inputs = [line for line in dry_run.stdout.splitlines() if line.strip().startswith("input:")]
        assert any(script in line for line in inputs)


def test_shards_and_cores_change_no_array(root: Path, finished: Path) -> None:
    folder = new_folder(finished.parent, "one_shard", ONE_SHARD)
    targets = [f"results/fits/{study}.nc" for study in ONE_SHARD]
    targets += [f"results/laboratory/{study}.nc" for study in ["weak_noise", "double_well"]]
    run = snakemake(root, folder, *targets, cores=1)
    assert run.returncode == 0, run.stderr[-4000:]
    made = contents(folder)
    assert set(targets) <= set(made)
    assert made.items() <= contents(finished).items()


def test_a_run_that_is_killed_twice_ends_like_an_undisturbed_one(
    root: Path, finished: Path
) -> None:
    folder = new_folder(finished.parent, "killed")
    for seconds in [7, 20]:
        with subprocess.Popen(
            command(root, folder),
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            time.sleep(seconds)
            second = snakemake(root, folder)
            assert "another run is at work in this folder" in second.stderr
            assert process.poll() is None
            os.killpg(process.pid, signal.SIGKILL)
    run = snakemake(root, folder)
    assert run.returncode == 0, run.stderr[-4000:]
    assert contents(folder) == contents(finished)


def test_a_damaged_intermediate_stops_the_stage_that_reads_it(root: Path, finished: Path) -> None:
    folder = new_folder(finished.parent, "damaged")
    source = finished / "results/network/hessian_seed0.nc"
    # With the record of what was made from what, else everything would be made again.
    for part in ["results", ".snakemake"]:
        shutil.copytree(finished / part, folder / part, dirs_exist_ok=True)
    damaged = folder / source.relative_to(finished)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    run = snakemake(root, folder, "--force", "results/network/reference_seed.json")
    assert run.returncode != 0
    errors = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "hessian_seed0.nc" in errors[0]
    assert "Delete it and run the same command again" in errors[0]


def test_a_damaged_choice_of_the_seed_is_told_in_one_line(root: Path, finished: Path) -> None:
    path = finished / "results/network/reference_seed.json"
    content = path.read_text()
    path.write_text(content.replace('"seed": ', '"seed": 1', 1))
    try:
        dry_run = snakemake(root, finished, "-n")
    finally:
        path.write_text(content)
    assert dry_run.returncode != 0
    errors = [line for line in dry_run.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "reference_seed.json was damaged or edited" in errors[0]
    assert "Traceback" not in dry_run.stderr


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ({"sede": 1}, "sede"),
        ({"network": {"first_passage": {"batch_sizes": [200]}}}, "batch"),
        ({"linear_regression": {"first_passage": {"thresholds": {"min": 0.9}}}}, "thresholds.min"),
    ],
)
def test_a_wrong_config_stops_before_any_job(
    root: Path, finished: Path, overlay: dict, message: str
) -> None:
    folder = new_folder(finished.parent, f"wrong_{message}", overlay)
    run = snakemake(root, folder)
    assert run.returncode != 0
    errors = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in run.stderr


def test_too_few_passages_are_an_outcome_with_a_name(root: Path, finished: Path) -> None:
    passages = {
        "max_steps": 1,
        "dimensions": [1],
        "thresholds": {"min": 50.0, "max": 100.0},
        "fit_range": [50.0, 100.0],
    }
    # Each step of eta = 100 multiplies theta by about a hundred.
    overlay = {
        "linear_regression": {
            "first_passage": passages,
            "stationary": {"learning_rates": [0.1, 100.0], "interval": 1000},
        }
    }
    folder = new_folder(finished.parent, "no_passage", overlay)
    samples = "results/linear_regression/stationary_samples.nc"
    run = snakemake(root, folder, "results/fits/linear_regression.nc", samples)
    assert run.returncode == 0, run.stderr[-4000:]
    # Those of eta = 100 at both batch sizes.
    assert outcomes_of(storage.read(folder / samples, "stationary_samples")) == {"diverged": 2}
    fits = storage.read(folder / "results/fits/linear_regression.nc", "fit")
    assert outcomes_of(fits) == {"too_few_passages": 1}
    assert fits["events"].sum() == 0
    for name in ["exponent", "exact_exponent", "predicted_intercept"]:
        assert np.isnan(fits[name]).all()
    # What is known: no passage in one step of five runs bounds the mean.
    assert np.all(fits["mean_first_passage_step_low"] > 0)


def test_zero_loss_goes_through_to_the_fits_by_name(root: Path, finished: Path) -> None:
    """Equal labels are fitted exactly; some images stand twice."""
    overlay = {
        "network": {
            "pretraining": {"seeds": [0], "learning_rate": 0.5, "steps": 5000},
            "hidden_units": 4,
        },
        # Thirty steps that multiply an error by a hundred: beyond the largest float32.
        "decoupling": {"learning_rate": 100.0, "epochs": [0, 5]},
    }
    folder = new_folder(finished.parent, "zero_loss", overlay)
    data = storage.read(folder / DATA[0], "dataset")
    image = data["image"].copy()
    image[10:20] = image[:10].values
    planted = data.assign(image=image, label=data["label"] * 0 + np.uint8(2))
    storage.write(planted, folder / DATA[0], "dataset")
    made = {
        "network/pretrained_seed0": {"constant_labels", "duplicate_samples", "zero_loss"},
        "network/first_passage_seed0_eta0.03_B10": {"zero_loss"},
        "network/escape_seed0": {"zero_loss"},
        "noise/alignment_seed0": set(),
        "decoupling/epoch5": {"diverged"},
        "fits/network": {"too_few_passages"},
        "fits/network_collapse": {"too_few_passages"},
    }
    run = snakemake(root, folder, *(f"results/{name}.nc" for name in made))
    assert run.returncode == 0, run.stderr[-4000:]
    for name, expected in made.items():
        assert expected <= set(outcomes_of(storage.read(folder / f"results/{name}.nc", "fit")))


def test_runs_are_added_until_the_budget_and_none_is_made_again(root: Path, finished: Path) -> None:
    passages = {"dimensions": [1], "exponent_width": 0.001, "max_runs": 14}
    overlay = {"linear_regression": {"first_passage": passages}}
    folder = new_folder(finished.parent, "precise", overlay)
    for part in ["results", ".snakemake"]:
        shutil.copytree(finished / part, folder / part, dirs_exist_ok=True)
    target = "results/linear_regression/first_passage_d1_eta0.1_B1.nc"
    shards = sorted((folder / "results/linear_regression/shards").glob("*_d1_*"))
    dates = [path.stat().st_mtime_ns for path in shards]
    run = snakemake(root, folder, target)
    assert run.returncode == 0, run.stderr[-4000:]
    record, before = (storage.read(where / target, "first_passage") for where in (folder, finished))
    assert record["run"].values.tolist() == list(range(10))
    xr.testing.assert_equal(record.isel(run=slice(5)), before)
    assert [path.stat().st_mtime_ns for path in shards] == dates
    # Of other resamples the interval has another width, so that runs may have to be added.
    study = (folder / "study.yaml").read_text()
    (folder / "study.yaml").write_text(study.replace("resamples: 100", "resamples: 101"))
    due = rules_to_run(snakemake(root, folder, target, "-n").stdout)
    assert {"assess_precision", "gather_linear_regression"} <= due.keys()
    (folder / "study.yaml").write_text(study)
    (last,) = (folder / "results/linear_regression/precision").glob("*_rounds2.json")
    assert "max_runs leaves no room" in json.loads(last.read_text())["reason_to_stop"]
    # A wider interval is reached at once: what is too much stays, and is not gathered.
    (folder / "study.yaml").write_text(
        (folder / "study.yaml").read_text().replace("0.001", "1000.0")
    )
    run = snakemake(root, folder, target)
    assert run.returncode == 0, run.stderr[-4000:]
    xr.testing.assert_equal(storage.read(folder / target, "first_passage"), before)
    assert [path.stat().st_mtime_ns for path in shards] == dates
