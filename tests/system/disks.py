"""Disks that are full, and folders that may not be written to."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

from outcome import FINISHES, Outcome, complaints, said, shortened, unfinished, unlinked
from pipeline import Pipeline, fill_disk, half_written, read_only, small_disk
from waves import stage, waves


def one_output_of_each_stage(pipeline: Pipeline, random: Random) -> list[str]:
    outputs: dict[str, list[str]] = {}
    for name, job in pipeline.jobs.items():
        outputs.setdefault(stage(job.rule), []).append(name)
    return [random.choice(names) for names in outputs.values()]


def disk(pipeline: Pipeline, random: Random, count: int) -> Iterator[Outcome]:
    """The disk of the results fills while jobs of every stage are at work."""

    def one_needs_the_other(one: str, other: str) -> bool:
        needed = pipeline.ancestors(other) | pipeline.outputs(other)
        return not needed.isdisjoint(pipeline.outputs(one))

    for targets in waves(one_output_of_each_stage(pipeline, random), one_needs_the_other):
        folder = pipeline.new("full_disk")
        with small_disk(folder / "results", pipeline.size + 12 * 2**20):
            yield from disk_fills(pipeline, folder, targets)
    yield from whole_disk(pipeline, random)


def disk_fills(pipeline: Pipeline, folder: Path, targets: list[str]) -> Iterator[Outcome]:
    pipeline.fill(folder)
    removed = {name for target in targets for name in pipeline.outputs(target)}
    unlinked(folder, sorted(removed))
    command = ["--keep-going", *targets]
    started = pipeline.start(folder, *command)
    started.wait_for(lambda: "jobid:" in started.printed())
    ballast = fill_disk(folder / "results")
    run = started.end()
    there = [f"{name} is there" for name in removed if (folder / name).exists()]
    there += [f"{name} is half-written" for name in half_written(folder)]
    ballast.unlink()
    wrong = complaints(run) + there + unfinished(pipeline, folder, *command)
    for target in targets:
        lines = [
            line
            for line in run.errors
            if "No space left" in line and any(n in line for n in pipeline.outputs(target))
        ]
        mine = [] if len(lines) == 1 else [f"{len(lines)} lines about {target}"]
        yield Outcome(
            "disk full while a job is at work",
            stage(pipeline.jobs[target].rule),
            shortened("".join(lines[:1])),
            f"space is made, {FINISHES}",
            mine + wrong,
        )


def whole_disk(pipeline: Pipeline, random: Random) -> Iterator[Outcome]:
    """As Snakemake's own records are on the full disk too, what it says then is its own."""
    folder = pipeline.new("full_disk")
    with small_disk(folder, pipeline.size + 2**25):
        pipeline.fill(folder)
        pipeline.remove_some(folder, random, 2)
        started = pipeline.start(folder)
        started.wait_for(lambda: "jobid:" in started.printed())
        ballast = fill_disk(folder)
        run = started.end()
        again = pipeline.run(folder)
        wrong = complaints(again, r"error: .*Free some space there, then run the same command")
        ballast.unlink()
        wrong += unfinished(pipeline, folder)
        then = f"space is made, {FINISHES}"
        where = "results and .snakemake"
        yield Outcome(
            "disk fills during a run", where, said(run, "No space left"), then, complaints(run)
        )
        yield Outcome("disk full before a run", where, said(again, "^error: "), then, wrong)


def temporary(pipeline: Pipeline, random: Random, count: int) -> Iterator[Outcome]:
    """The folder for temporary files is full, or not there."""
    parts = [name for name in pipeline.jobs if name.startswith("results/laboratory/parts")]
    target = random.choice(parts)
    folder, place = pipeline.copy("temporary"), pipeline.scratch / "temporary_files"
    (folder / target).unlink()
    wrong = unfinished(pipeline, folder, target, env={"TMPDIR": "/nowhere"})
    yield Outcome("TMPDIR missing", "", "", "it finishes with /tmp instead, arrays equal", wrong)
    (folder / target).unlink()
    with small_disk(place, 2**20):
        fill_disk(place)
        run = pipeline.run(folder, target, env={"TMPDIR": str(place)})
    wrong = complaints(run, "^error: .*Free some space") + unfinished(pipeline, folder, target)
    then = f"space is made, {FINISHES}"
    yield Outcome("TMPDIR full", "", said(run, "^error: "), then, wrong)


def readonly(pipeline: Pipeline, random: Random, count: int) -> Iterator[Outcome]:
    """Folders that may not be written to."""
    target = random.choice(sorted(pipeline.jobs))
    for place in ["results", "."]:
        folder = pipeline.copy("read_only")
        (folder / target).unlink()
        with read_only(folder / place):
            run = pipeline.run(folder, target)
        wrong = complaints(run, "^error: .*Make it writable")
        wrong += unfinished(pipeline, folder, target)
        where = {"results": "results", ".": "the whole folder"}[place]
        then = f"it is made writable, {FINISHES}"
        yield Outcome("folder read-only", where, said(run, "^error: "), then, wrong)
