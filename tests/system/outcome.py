"""What became of a fault, and what may be wrong with it."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline import Pipeline, Run, half_written

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
    wrong += ["it hangs"] if run.hangs else []
    wrong += ["a traceback"] if run.has_traceback else []
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
    wrong += ["it hangs"] if run.hangs else []
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
