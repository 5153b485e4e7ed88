"""What may befall a run, each with what the user sees of it and what becomes of the results."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import psutil
from bad_sources import source
from damages import damage
from disks import disk, readonly, temporary
from outcome import FINISHES, Outcome, complaints, last_line, said, unfinished, unsettled
from pipeline import NotTried, Pipeline, Started, files_of

DAY = 86400
START_UP = 5
FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


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
    longest = min(2 * (START_UP + pipeline.seconds / count), pipeline.seconds)
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
    """None too where there was no job to hit, or it had just ended."""
    started.wait_for(started.jobs)
    if jobs := started.jobs():
        with contextlib.suppress(psutil.NoSuchProcess):
            random.choice(jobs).kill()
    run = started.end()
    # The second where a shell stands between.
    if not re.search("died with <Signals.SIGKILL|exit status 137", run.output):
        return None
    fault, where = "SIGKILL of a job, as for want of memory", "at random moments"
    wrong = complaints(run, "^The run stopped .* SIGKILL .* run the same command again")
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
        wrong = [text for text in complaints(run, "^The run stopped") if text != "a traceback"]
        wrong += unfinished(pipeline, folder)
        yield Outcome(f"{number.name} to {to}", "", said(run, "^The run"), FINISHES, wrong)


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
    yield clock_set_back_during_a_run(pipeline, random)
    for hours, fault in faults.items():
        env = an_hour_off(-hours)
        folder = pipeline.copy("clock")
        with dates_kept(pipeline.root):
            wrong = unsettled(pipeline, folder, env=env)
            pipeline.remove_some(folder, random, 2)
            wrong += unfinished(pipeline, folder, env=env) + unsettled(pipeline, folder)
        yield Outcome(fault, "by an hour, in what processes see", "", FINISHES, wrong)


def clock_set_back_during_a_run(pipeline: Pipeline, random: Random) -> Outcome:
    """What is there already, and what the first job made, is then of the future."""
    folder = pipeline.copy("clock")
    pipeline.remove_some(folder, random, 8)
    with dates_kept(pipeline.root):
        started = pipeline.start(folder)
        begun = started.wait_for(lambda: "Finished jobid" in started.printed())
        for path in [*files_of(folder / "results"), *files_of(pipeline.root)]:
            with contextlib.suppress(FileNotFoundError):
                os.utime(path, (path.stat().st_mtime + DAY,) * 2)
        run = started.end()
        wrong = [] if begun else ["the run had ended before"]
        wrong += complaints(run, "run the same command again") if run.status else []
        wrong += unfinished(pipeline, folder) + unsettled(pipeline, folder)
    where = "by a day, while a run is at work"
    return Outcome("clock set back", where, said(run, "^The run"), FINISHES, wrong)


def an_hour_off(hours: int) -> dict[str, str]:
    """The environment of processes that see another time. Raises NotTried where none do."""
    if not FAKETIME:
        raise NotTried("libfaketime, which shows processes another time, is not installed")
    env = {"LD_PRELOAD": str(FAKETIME[0]), "FAKETIME": f"{hours:+}h", "NO_FAKE_STAT": "1"}
    env["FAKETIME_DONT_FAKE_MONOTONIC"] = "1"
    shown = subprocess.check_output(["date", "+%s"], env=os.environ | env)
    if abs(int(shown) - time.time() - 3600 * hours) > 60:
        raise NotTried("libfaketime shows processes the same time as ever")
    return env


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
        pipeline.remove_some(folder, random, 8)
        started = pipeline.start(folder)
        started.wait_for(lambda started=started: "Finished jobid" in started.printed())
        alive = started.process.poll() is None
        if where == "after a kill half-way":
            started.signal_group(signal.SIGKILL)
            started.end()
        # At once, as deleting its files one by one would take longer than Snakemake to make others.
        shutil.rmtree((folder / ".snakemake").rename(folder / "deleted"))
        run = started.end()
        killed_or_finished = run.status in (0, -signal.SIGKILL)
        wrong = [] if killed_or_finished else complaints(run, "run the same command again")
        wrong += [] if alive else ["the run had ended before"]
        wrong += unfinished(pipeline, folder)
        yield Outcome(fault, where, said(run, "^The run"), FINISHES, wrong)


FAULTS: dict[str, Callable[[Pipeline, Random, int], Iterator[Outcome]]] = {
    function.__name__: function
    for function in [
        *(kill, signals, disk, temporary, readonly, damage, clock, twice, records, source),
    ]
}
