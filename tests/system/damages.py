"""Files that are cut short, or of which a bit is flipped."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from outcome import DELETE_IT, FINISHES, Outcome, complaints, said, shortened, unfinished, unlinked
from pipeline import NotTried, Pipeline, Run, files_of
from waves import stage, waves

from sgd_escape import storage

Harm = Callable[[bytes, Random], tuple[str, bytes]]
REPORT = "results/report.html"
# What the Snakefile itself reads from the files of these rules, and what depends on it.
DECISIONS = {
    "choose_reference_seed": "results/fits/network.nc",
    "assess_precision": REPORT,
}


def cut(content: bytes, random: Random) -> tuple[str, bytes]:
    anywhere = random.randrange(len(content))
    length = random.choice([0, 1, len(content) // 2, len(content) - 1, anywhere])
    return f"cut to {length} of {len(content)} bytes", content[:length]


def half(content: bytes, random: Random) -> tuple[str, bytes]:
    return "cut in half", content[: len(content) // 2]


def flipped(content: bytes, random: Random) -> tuple[str, bytes]:
    place, bit = random.randrange(len(content)), random.randrange(8)
    changed = bytes([content[place] ^ 1 << bit])
    return f"bit {bit} of byte {place} flipped", content[:place] + changed + content[place + 1 :]


def kind_of(pipeline: Pipeline, name: str) -> str:
    """What kind of file it is; files of one kind are read alike."""
    if not name.endswith(".nc"):
        return Path(name).suffix
    dataset = storage.read(pipeline.reference / name, "fit")
    found = {str(key): " ".join(map(str, array.dims)) for key, array in dataset.variables.items()}
    for kind, layout in storage.KINDS.items():
        dims = {key: text.partition(" ")[2] for key, text in (layout.variables or {}).items()}
        if found == dims:
            return kind
    return stage(pipeline.jobs[name].rule)


def read_files(pipeline: Pipeline, random: Random) -> list[tuple[str, str, str]]:
    """A file of every kind, its kind, and a file that is made from it with the least work."""
    readers: dict[str, list[str]] = {}
    for output, job in pipeline.jobs.items():
        # It comes after the results and reads none of them.
        for name in job.inputs if job.rule != "provenance" else ():
            if name in pipeline.jobs and pipeline.jobs[name].rule not in DECISIONS:
                readers.setdefault(name, []).append(output)
    by_kind: dict[str, list[str]] = {}
    for name in readers:
        by_kind.setdefault(kind_of(pipeline, name), []).append(name)
    chosen = {kind: random.choice(names) for kind, names in by_kind.items()}
    return [
        (name, kind, min(readers[name], key=lambda reader: len(pipeline.ancestors(reader))))
        for kind, name in chosen.items()
    ]


def damage(pipeline: Pipeline, random: Random, count: int) -> Iterator[Outcome]:
    """Files between rules, cut short or with a flipped bit."""

    def one_hides_the_other(one: tuple[str, str, str], other: tuple[str, str, str]) -> bool:
        (name, _, reader), (_, _, other_reader) = one, other
        needed = pipeline.ancestors(other_reader) | pipeline.outputs(other_reader)
        return not needed.isdisjoint({name} | pipeline.outputs(reader))

    for wave in waves(read_files(pipeline, random), one_hides_the_other):
        yield from damaged(pipeline, random, wave)
    yield from damaged_unread(pipeline, random)
    yield from damaged_checkpoint(pipeline, random)


def damaged(
    pipeline: Pipeline, random: Random, wave: list[tuple[str, str, str]]
) -> Iterator[Outcome]:
    folder = pipeline.copy("damaged")
    command = ["--keep-going", *(reader for _, _, reader in wave)]
    outcomes: list[Outcome] = []
    for harm in [cut, flipped]:
        how = {}
        for name, _, _ in wave:
            shutil.copy2(pipeline.reference / name, folder / name)
            how[name] = harmed(folder / name, harm, random)
        run = pipeline.run(folder, *command)
        outcomes += [said_of_damage(run, name, kind, how[name]) for name, kind, _ in wave]
    unlinked(folder, [name.removesuffix(".sha256") for name, _, _ in wave])
    wrong = unfinished(pipeline, folder, *command)
    for outcome in outcomes:
        yield outcome._replace(wrong=[*outcome.wrong, *wrong])


def said_of_damage(run: Run, name: str, kind: str, how: str) -> Outcome:
    """A checksum that was damaged is told by the name of the file that it belongs to."""
    named = Path(name.removesuffix(".sha256")).name
    lines = [line for line in run.errors if named in line and DELETE_IT in line]
    wrong = [*complaints(run), *([] if lines else [f"nothing about {name}, {how}"])]
    fault = "flipped bit" if "flipped" in how else "file cut short"
    return Outcome(fault, kind, shortened("".join(lines[:1])), f"it is deleted, {FINISHES}", wrong)


def harmed(path: Path, harm: Harm, random: Random) -> str:
    how, content = harm(path.read_bytes(), random)
    path.write_bytes(content)
    return how


def damaged_unread(pipeline: Pipeline, random: Random) -> Iterator[Outcome]:
    """Files that are read by the way: choices of the Snakefile, run times, Snakemake's records."""
    jobs = pipeline.jobs.items()
    read = {job.rule: name for name, job in jobs if job.rule in DECISIONS and ".sha256" not in name}
    for rule, name in read.items():
        for harm in [cut, flipped]:
            yield damaged_by_the_way(pipeline, random, harm, name, DECISIONS[rule])
    yield damaged_by_the_way(pipeline, random, half, "results/benchmarks/claims.tsv", REPORT)
    folder = pipeline.copy("damaged")
    for path in files_of(folder / ".snakemake" / "metadata"):
        harmed(path, cut, random)
    wrong = unfinished(pipeline, folder)
    yield Outcome("file cut short", "Snakemake's records of all jobs", "", FINISHES, wrong)
    for harm, fault in [(cut, "file cut short"), (flipped, "flipped bit")]:
        yield damaged_programs(pipeline, random, harm, fault)


def damaged_programs(pipeline: Pipeline, random: Random, harm: Harm, fault: str) -> Outcome:
    folder, target = pipeline.copy("damaged"), "results/network/pretrained_seed0.nc"
    for path in filter(os.path.getsize, files_of(folder / ".cache" / "jax")):
        harmed(path, harm, random)
    (folder / target).unlink()
    run = pipeline.run(folder, target)
    warned = "reading persistent compilation cache" in run.output
    wrong = [] if warned else ["no damaged program was read"]
    wrong += unfinished(pipeline, folder, target)
    return Outcome(fault, "compiled programs in .cache", "", FINISHES, wrong)


def damaged_by_the_way(
    pipeline: Pipeline, random: Random, harm: Harm, name: str, target: str
) -> Outcome:
    folder = pipeline.copy("damaged")
    harmed(folder / name, harm, random)
    (folder / target).unlink()
    run = pipeline.run(folder, target)
    (folder / name).unlink()
    wrong = complaints(run, f"^error: .*{Path(name).name}.*{DELETE_IT}")
    wrong += unfinished(pipeline, folder, target)
    fault = "flipped bit" if harm is flipped else "file cut short"
    then = f"it is deleted, {FINISHES}"
    return Outcome(fault, Path(name).name, said(run, "^error: "), then, wrong)


def damaged_checkpoint(pipeline: Pipeline, random: Random) -> Iterator[Outcome]:
    """Trainings begin anew where their checkpoint is damaged, and go on where it is whole."""
    target = "results/noise/fc_cross_entropy.nc"
    for harm in [cut, flipped, None]:
        folder = pipeline.copy("checkpoint")
        checkpoint = checkpoint_of_a_kill(pipeline, folder, target)
        if harm:
            harmed(checkpoint, harm, random)
            wrong = unfinished(pipeline, folder, target)
        else:
            wrong = not_taken_up(pipeline, folder, target, checkpoint)
        wrong += [f"{checkpoint.name} is left"] if checkpoint.exists() else []
        fault = {cut: "file cut short", flipped: "flipped bit", None: "training killed"}[harm]
        then = FINISHES if harm else "it goes on from its checkpoint, arrays equal"
        yield Outcome(fault, "checkpoint in .cache", "", then, wrong)


def checkpoint_of_a_kill(pipeline: Pipeline, folder: Path, target: str) -> Path:
    for _ in range(5):
        unlinked(folder, [target])
        started = pipeline.start(folder, target)
        started.wait_for(lambda: list(folder.glob(".cache/checkpoints/*.nc")))
        started.signal_group(signal.SIGKILL)
        started.end()
        for path in folder.glob(".cache/checkpoints/*.nc"):
            return path
    raise NotTried("no training was killed between its first checkpoint and its end")


def not_taken_up(pipeline: Pipeline, folder: Path, target: str, checkpoint: Path) -> list[str]:
    """What is wrong if a whole checkpoint is not where the training goes on.

    One of another state, sealed as valid, has to lead to another result.
    """
    content = checkpoint.read_bytes()
    state = storage.read(checkpoint, "checkpoint")
    other = {name: leaf * 1.01 for name, leaf in state.items() if leaf.dtype.kind == "f"}
    storage.write(state.assign(other), checkpoint, "checkpoint")
    run = pipeline.run(folder, target)
    changed = run.status == 0 and pipeline.differences(folder)
    checkpoint.write_bytes(content)
    unlinked(folder, [target])
    wrong = [] if changed else ["it does not go on from its checkpoint"]
    return wrong + unfinished(pipeline, folder, target)
