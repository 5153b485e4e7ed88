"""The pipeline as a user runs it: in folders of its own, from a copy of the workflow."""

import contextlib
import csv
import hashlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import NamedTuple

import psutil
import yaml
from arrays import digests

from sgd_escape import storage
from sgd_escape.errors import SgdEscapeError

ROOT = Path(__file__).parents[2]
STUDY = Path(__file__).with_name("study.yaml")
# Seconds after which a run counts as hanging: a whole one takes minutes.
HANGS = 3600
# The rules whose inputs the Snakefile chooses by what these have decided.
CHECKPOINTS = {"choose_reference_seed", "assess_precision"}
DECIDED = {f"draw_{name}" for name in ["fig6", "alignment", "escape_direction", "drift"]}
DECIDED |= {"gather_linear_regression", "gather_network", "fit_network"}
DATA = {
    "mnist": ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"],
    "fashion_mnist": ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"],
    "cifar10": [f"data_batch_{batch}.bin" for batch in range(1, 6)],
}


class NotTried(Exception):
    """Why a fault cannot be done here."""


class Run(NamedTuple):
    """How a command ended, and all that it printed."""

    status: int
    output: str
    hangs: bool = False

    @property
    def errors(self) -> list[str]:
        """The lines that tell the user what is wrong and what to do."""
        return [line for line in self.output.splitlines() if line.startswith("error: ")]

    @property
    def has_traceback(self) -> bool:
        return "Traceback (most recent call last)" in self.output


@dataclass
class Started:
    """A command that is at work, with the file that it prints to."""

    process: subprocess.Popen[bytes]
    log: Path

    def end(self) -> Run:
        """How it ended; what does not end in time, or is interrupted, is killed."""
        hangs = False
        try:
            self.process.wait(HANGS)
        except subprocess.TimeoutExpired:
            hangs = True
        finally:
            if self.process.poll() is None:
                self.signal_group(signal.SIGKILL)
        return Run(self.process.wait(), self.printed(), hangs)

    def printed(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, what: Callable[[], object], seconds: float = 120) -> bool:
        """Whether something came true before the command ended."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            if what():
                return True
            time.sleep(0.01)
        return False

    def jobs(self) -> list[psutil.Process]:
        """The processes of the jobs that are running now."""
        with contextlib.suppress(psutil.NoSuchProcess):
            descendants = psutil.Process(self.process.pid).children(recursive=True)
            return [process for process in descendants if _is_job(process)]
        return []

    def ends_within(self, seconds: float) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        return self.process.poll() is not None

    def signal_group(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def signal_main(self, number: int) -> None:
        self.process.send_signal(number)


def _is_job(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(".snakemake/scripts/" in argument for argument in process.cmdline())
    return False


class Job(NamedTuple):
    """What made a file, from which files, and the log that tells it from others of its rule."""

    rule: str
    log: str
    inputs: tuple[str, ...]


@dataclass
class Pipeline:
    """A copy of the workflow, and one finished run of it that the others are compared with.

    Both are kept in `scratch` for the next time.
    """

    scratch: Path
    logs: Path
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.root, self.study = self.scratch / "workflow", self.scratch / "study.yaml"
        self.reference = self.scratch / "reference"
        if not self._has_reference():
            self._make_reference()
        self.seconds = float((self.scratch / "seconds").read_text())
        self._digests = digests(self.reference)
        self.jobs = self._jobs_of_reference()

    def _has_reference(self) -> bool:
        """Whether an undisturbed run of the same files has been made before."""
        made_of = self.scratch / "made_of"
        return made_of.exists() and made_of.read_text() == digest_of_workflow()

    def _make_reference(self) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)
        copy_of_workflow(self.root)
        originals = write_originals(ROOT / "results" / "data", self.scratch / "originals")
        study = yaml.safe_load(STUDY.read_text(encoding="utf-8"))
        study["data"] = {"sources": ["folder"], "folder": str(originals)}
        # Too few runs for another round, but every rule has something to do.
        study["linear_regression"]["first_passage"] |= {"exponent_width": 0.001, "max_runs": 9}
        self.study.write_text(yaml.safe_dump(study))
        before = time.monotonic()
        run = self.run(self.new("reference"))
        if run.status:
            sys.exit(f"error: the undisturbed run failed, see {self.logs}:\n{run.output[-2000:]}")
        (self.scratch / "seconds").write_text(str(time.monotonic() - before))
        (self.scratch / "made_of").write_text(digest_of_workflow())

    def start(self, folder: Path, *arguments: str, env: dict[str, str] | None = None) -> Started:
        command = [
            *(sys.executable, "-m", "snakemake", "--snakefile", str(self.root / "Snakefile")),
            *("--workflow-profile", str(self.root / "profiles" / "default"), "--cores", "2"),
            *("--configfile", str(self.study), "--directory", str(folder), *arguments),
        ]
        log = self.logs / f"{next(self._numbers):03}_{folder.name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=os.environ | {"PYTHONPATH": str(self.root / "src")} | (env or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Started(process, log)

    def run(self, folder: Path, *arguments: str, env: dict[str, str] | None = None) -> Run:
        return self.start(folder, *arguments, env=env).end()

    def new(self, name: str) -> Path:
        """An empty folder."""
        folder = self.scratch / name
        # Of a harness that was killed.
        for place in [folder / "results", folder]:
            if place.is_mount():
                subprocess.run(["umount", "-l", str(place)], check=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def copy(self, name: str) -> Path:
        """A copy of the finished run."""
        folder = self.new(name)
        self.fill(folder)
        return folder

    @property
    def size(self) -> int:
        """The room that a finished run takes on a disk, in bytes."""
        pages = (-(-path.stat().st_size // 4096) for path in files_of(self.reference))
        return 4096 * sum(pages)

    def fill(self, folder: Path) -> None:
        for part in ["results", ".snakemake", ".cache"]:
            shutil.copytree(self.reference / part, folder / part, dirs_exist_ok=True)

    def differences(self, folder: Path) -> list[str]:
        """The files that are missing, too many or other than in the undisturbed run."""
        try:
            found = digests(folder)
        except SgdEscapeError as error:
            return [str(error)]
        names = found.keys() | self._digests.keys()
        return sorted(name for name in names if found.get(name) != self._digests.get(name))

    def ancestors(self, path: str) -> set[str]:
        """All files of the study that a file is made from, all the way up."""
        found: set[str] = set()
        waiting = [path]
        while waiting:
            job = self.jobs.get(waiting.pop())
            new = {name for name in job.inputs if name in self.jobs} - found if job else set()
            found |= new
            waiting += new
        return found

    def remove_some(self, folder: Path, random: Random, count: int) -> None:
        """Delete some files of a run and what was made from them, as not all are missed alone."""
        needed = {name: self.ancestors(name) for name in self.jobs}
        behind = {name: [n for n in self.jobs if name in needed[n]] for name in self.jobs}
        few = [name for name in sorted(self.jobs) if len(behind[name]) <= 6]
        for name in random.sample(few, count):
            for lost in [name, *behind[name]]:
                (folder / lost).unlink(missing_ok=True)

    def outputs(self, path: str) -> set[str]:
        """The files that come from the same job as `path`, itself among them."""
        return {name for name, job in self.jobs.items() if job == self.jobs[path]}

    def _jobs_of_reference(self) -> dict[str, Job]:
        # The choice of the seed is no input of anything, hence asked for by name.
        targets = ["all", "results/network/reference_seed.json"]
        printed = self.run(self.reference, *targets, "--detailed-summary").output
        table = printed[printed.index("output_file\t") :].splitlines()
        rows = list(csv.DictReader(table, delimiter="\t"))
        decisions = tuple(row["output_file"] for row in rows if row["rule"] in CHECKPOINTS)
        return {
            row["output_file"]: Job(
                row["rule"],
                row["log-file(s)"],
                tuple(row["input-file(s)"].split(","))
                + (decisions if row["rule"] in DECIDED else ()),
            )
            for row in rows
        }


def workflow_files() -> list[Path]:
    """The files of the repository that a run needs."""
    folders = [ROOT / name for name in ["workflow", "config", "profiles", "src"]]
    found = [path for folder in folders for path in files_of(folder)]
    kept = [path for path in found if not re.search(r"__pycache__|\.egg-info", str(path))]
    return sorted(
        [*kept, *(ROOT / name for name in ["Snakefile", "config.yaml", "environment.yml"])]
    )


def digest_of_workflow() -> str:
    digest = hashlib.sha256()
    for path in [*workflow_files(), STUDY, ROOT / "requirements.lock", Path(__file__)]:
        digest.update(str(path).encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def copy_of_workflow(folder: Path) -> None:
    """The files that a run needs, with checkpoints after every part of a training.

    A copy, as an edit of the repository during the harness would make everything be made again.
    """
    for path in workflow_files():
        copy = folder / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    module = folder / "src" / "sgd_escape" / "checkpoints.py"
    text, count = re.subn(r"seconds: float = \d+", "seconds: float = 0", module.read_text())
    assert count == 1, "resumable() has no default number of seconds any more"
    module.write_text(text)


def write_originals(datasets: Path, folder: Path) -> Path:
    """The original files of the data sets, made again from what the pipeline decoded them to."""
    for name, files in DATA.items():
        (folder / name).mkdir(parents=True)
        kind = "color_dataset" if name == "cifar10" else "dataset"
        stored = storage.read(datasets / f"{name}.nc", kind)
        images, labels = stored["image"].values, stored["label"].values
        if name == "cifar10":
            planes = images.transpose(0, 3, 1, 2).reshape(len(labels), -1)
            for file, start in zip(files, range(0, len(labels), 10000), strict=True):
                records = (
                    labels[i].tobytes() + planes[i].tobytes() for i in range(start, start + 10000)
                )
                (folder / name / file).write_bytes(b"".join(records))
            continue
        for file, array in zip(files, [images, labels], strict=True):
            header = bytes([0, 0, 8, array.ndim]) + b"".join(
                size.to_bytes(4, "big") for size in array.shape
            )
            (folder / name / file).write_bytes(header + array.tobytes())
    return folder


def files_of(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def half_written(folder: Path) -> list[str]:
    """What a write that was cut short left in the folders of the study."""
    places = [folder / "results", folder / ".cache"]
    return [path.name for place in places for path in files_of(place) if path.suffix == ".tmp"]


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A disk of `size` bytes in the place of a folder. Raises NotTried where none can be."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        raise NotTried("no small disk may be mounted here, which takes root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder that even root cannot write to. Raises NotTried where that cannot be done."""
    if os.geteuid() != 0:
        mode = folder.stat().st_mode
        folder.chmod(0o555)
        try:
            yield
        finally:
            folder.chmod(mode)
        return
    commands = [["mount", "--bind", str(folder), str(folder)]]
    commands += [["mount", "-o", "remount,ro,bind", str(folder)]]
    for command in commands:
        if subprocess.run(command, capture_output=True, check=False).returncode:
            raise NotTried("no folder may be mounted read-only here, which takes root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill_disk(folder: Path) -> Path:
    """A file in `folder` that leaves no room on its disk."""
    ballast = folder / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(2**16)):
            pass
    return ballast
