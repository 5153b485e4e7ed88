"""What rules ask of a cluster, and the profile that asks for it."""

from pathlib import Path

import pytest
import yaml
from snakemake.api import SnakemakeApi
from snakemake.iocontainers import Wildcards
from snakemake.rules import Rule
from snakemake.settings.types import ConfigSettings, ResourceSettings

ROOT = Path(__file__).parents[1]
PROFILE = yaml.safe_load((ROOT / "profiles" / "slurm" / "profile.yaml").read_text())


def rules_of(*configs: Path) -> dict[str, Rule]:
    """All rules of a study that run a script, as Snakemake reads them."""
    with SnakemakeApi() as api:
        workflow = api.workflow(
            ResourceSettings(cores=16),
            ConfigSettings(configfiles=configs),
            snakefile=ROOT / "Snakefile",
        )._workflow
        return {rule.name: rule for rule in workflow.rules if rule.name != "all"}


@pytest.fixture(scope="module")
def rules() -> dict[str, Rule]:
    return rules_of()


def asked(rule: Rule, attempt: int, architecture: str = "fc") -> dict[str, int]:
    wildcards = Wildcards(fromdict={"architecture": architecture, "loss": "mean_square"})
    resources = rule.expand_resources(wildcards, [], attempt)
    return {name: resources.get(name) for name in ["mem_mb", "runtime", "_cores"]}


def test_every_rule_states_its_memory_its_minutes_and_one_thread(rules: dict[str, Rule]) -> None:
    assert len(rules) > 40
    for name, rule in rules.items():
        resources = asked(rule, 1)
        assert 500 <= resources["mem_mb"] <= 16000, name
        least = 2 if rule._group == "closing" else 10
        assert least <= resources["runtime"] <= 120, name
        assert resources["_cores"] == 1, name


def test_each_further_attempt_has_twice_the_memory_and_the_time(rules: dict[str, Rule]) -> None:
    for name, rule in rules.items():
        first = asked(rule, 1)
        for attempt in range(2, PROFILE["retries"] + 2):
            factor = 2 ** (attempt - 1)
            again = asked(rule, attempt)
            assert again["mem_mb"] == factor * first["mem_mb"], name
            assert again["runtime"] == factor * first["runtime"], name


def test_the_spectra_ask_for_more_where_there_are_more_samples(rules: dict[str, Rule]) -> None:
    """The paper's 10000 instead of 5000: four times the matrix, eight times the work."""
    name = "decoupling_spectrum"
    ours, papers = asked(rules[name], 1), asked(rules_of(ROOT / "config" / "paper.yaml")[name], 1)
    assert papers["mem_mb"] - ours["mem_mb"] == 36 * (10000**2 - 5000**2) // 10**6
    assert papers["runtime"] > ours["runtime"]


def test_the_trainings_ask_for_the_time_of_their_multiplications() -> None:
    name = "measure_noise"
    # Each study is asked before the next one is read, as Snakefiles share their globals.
    rule = rules_of()[name]
    ours = [asked(rule, 1, architecture)["runtime"] for architecture in ["fc", "cnn"]]
    assert all(60 < minutes < 70 for minutes in ours)
    papers = rules_of(ROOT / "config" / "paper.yaml")[name]
    # 784-2000-2000-2000-10, forward, for 60000 images in 300 epochs.
    dense = (784 * 2000 + 2 * 2000**2 + 2000 * 10) * 60000 * 300
    assert asked(papers, 1)["runtime"] == 60 + dense // 10**11
    # Three stacks of three convolutions by 3 x 3 at 32, 16 and 8 pixels a side.
    stacks = [(32, 3 * 64 + 2 * 64**2), (16, 64 * 128 + 2 * 128**2), (8, 128 * 256 + 2 * 256**2)]
    convolutions = sum(side**2 * 9 * weights for side, weights in stacks) + 4**2 * 256 * 10
    assert asked(papers, 1, "cnn")["runtime"] == 60 + convolutions * 50000 * 400 // 10**11


def test_the_profile_names_groups_and_rules_that_exist(rules: dict[str, Rule]) -> None:
    assert PROFILE["executor"] == "slurm"
    groups = {rule._group for rule in rules.values() if rule._group}
    assert set(PROFILE["group-components"]) <= groups
    assert set(PROFILE.get("set-resources", {})) <= set(rules)
    assert {name for name in rules if name.startswith("draw_")} <= {
        name for name, rule in rules.items() if rule._group == "closing"
    }


def test_no_group_holds_a_checkpoint(rules: dict[str, Rule]) -> None:
    """A group that is left by way of a checkpoint and entered again would wait for itself."""
    checkpoints = [rule for rule in rules.values() if rule.is_checkpoint]
    assert checkpoints
    assert not [rule.name for rule in checkpoints if rule._group]


def test_downloads_stay_where_snakemake_runs(rules: dict[str, Rule]) -> None:
    """Nodes often have no network."""
    assert "download" in rules["download"].workflow._localrules


def test_the_profile_asks_for_no_account_partition_or_gpu() -> None:
    asked_for = PROFILE["default-resources"].keys() | PROFILE.get("set-resources", {}).keys()
    assert asked_for == {"mem_mb", "runtime"}
