"""The smoke pipeline on a real Slurm of one node, against the same pipeline without it.

Slurm is installed where it is missing (as root, by apt-get), runs in a folder, on ports and with a
key of its own, and is stopped again whatever happens. Prints a table of outcomes; exits with 1 when
one is wrong, or when nothing can be tested and --required is given.
"""

import argparse
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from arrays import differences, digests

ROOT = Path(__file__).parents[2]
LOCAL, BY_SLURM = ROOT / "build" / "smoke", ROOT / "build" / "slurm"
POLICY = Path("/usr/sbin/policy-rc.d")
PROGRAMS = ["munged", "slurmctld", "slurmd", "sinfo", "sbatch", "srun", "squeue", "scancel"]
# Two jobs long enough to be hit while they compute, and what is done to each.
FAULTS = {"fc_mean_square": "scancel", "cnn_mean_square": "scontrol requeue"}
# Seconds for a run of the miniature, which takes minutes.
LONGEST = 3600
# By then a job's Snakemake is about to start its script.
SECONDS_OF_START = 5
# MinJobAge is longer than the test, which asks at its end how often a job was started.
CONFIGURATION = """
ClusterName=smoke
SlurmctldHost=localhost
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0
ReturnToService=2
MinJobAge=3600
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName=localhost CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=main Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""


class NotTested(Exception):
    """Why there is nothing to test with here."""


def answer(*command: str) -> str:
    """What a command prints, nothing where it fails or is not there."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return run.stdout


def happens(condition: Callable[[], object], seconds: float = 60) -> bool:
    """Whether a condition comes true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.5)
    return True


def provide_slurm() -> None:
    """Install what is missing. Raises NotTested where that is not possible, or Slurm is in use."""
    if answer("sinfo", "--noheader"):
        raise NotTested("a Slurm cluster answers here already, and stays untouched")
    if os.geteuid() != 0:
        raise NotTested("installing and starting Slurm needs root")
    if all(map(shutil.which, PROGRAMS)):
        return
    if not shutil.which("apt-get"):
        raise NotTested("Slurm is missing, and so is apt-get, which would install it")
    install = ["apt-get", "install", "-y", "--no-install-recommends", "slurm-wlm", "munge"]
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    with no_services_started():
        for command in [["apt-get", "update"], install]:
            with suppress(subprocess.TimeoutExpired):
                subprocess.run(
                    command, env=environment, capture_output=True, timeout=300, check=False
                )
    if missing := [name for name in PROGRAMS if not shutil.which(name)]:
        raise NotTested(f"apt-get installed no {', '.join(missing)}")


@contextmanager
def no_services_started() -> Iterator[None]:
    """Debian asks this program before a package that it installs starts its daemon."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def configure(folder: Path) -> None:
    """Write the key and slurm.conf, and let every command of this process use them."""
    # munged wants everyone to reach its socket.
    folder.chmod(0o755)
    for name in ["state", "spool", "bin"]:
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    controller_port, node_port = free_ports(2)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(
            folder=folder,
            controller_port=controller_port,
            node_port=node_port,
            cpus=os.cpu_count(),
            memory=memory * 9 // 10,
        )
    )
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    # The executor takes SLURM_CONF away from the srun of a job.
    srun = folder / "bin" / "srun"
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun")} "$@"\n')
    srun.chmod(0o755)
    os.environ["PATH"] = f"{srun.parent}:{os.environ['PATH']}"


def daemons(folder: Path) -> Iterator[tuple[list[str], Callable[[], bool]]]:
    """The three of them, which stay in the foreground, and how to see that they are up."""
    munged = [
        *("munged", "--foreground", f"--socket={folder}/munge.socket"),
        *(f"--key-file={folder}/munge.key", f"--pid-file={folder}/munged.pid"),
        *(f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed"),
    ]
    yield munged, (folder / "munge.socket").exists
    yield ["slurmctld", "-D"], lambda: "localhost" in answer("sinfo", "--noheader")
    yield ["slurmd", "-D", "-N", "localhost"], lambda: "idle" in answer("sinfo", "--noheader")


@contextmanager
def running_slurm() -> Iterator[None]:
    """A cluster of this machine alone. Raises NotTested when it does not come up."""
    started = []
    with tempfile.TemporaryDirectory(prefix="slurm-") as name:
        folder = Path(name)
        configure(folder)
        try:
            for command, is_up in daemons(folder):
                log = folder / f"{command[0]}.out"
                with log.open("w") as output:
                    # Out of reach of Ctrl-C, which would take them away before their jobs.
                    daemon = subprocess.Popen(
                        command, stdout=output, stderr=output, start_new_session=True
                    )
                started.append(daemon)
                happens(lambda d=daemon, is_up=is_up: is_up() or d.poll() is not None)
                if not is_up():
                    raise NotTested(f"{command[0]} does not start: {log.read_text()[-500:]}")
            yield
        finally:
            stop(started)


def stop(started: list[subprocess.Popen]) -> None:
    """Cancel what runs, then end the daemons, the last one first."""
    answer("scancel", "--full", "--user=root")
    happens(lambda: not answer("squeue", "--noheader"), 30)
    for daemon in reversed(started):
        daemon.terminate()
        try:
            daemon.wait(15)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def command(folder: Path, *arguments: str) -> list[str]:
    return [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")),
        *("--configfile", str(ROOT / "config" / "smoke.yaml"), "--directory", str(folder)),
        *("--cores", str(min(2, os.cpu_count() or 1)), *arguments),
    ]


def local_run() -> tuple[str, str]:
    log = LOCAL.with_suffix(".log")
    log.parent.mkdir(exist_ok=True)
    with log.open("w") as output:
        run = subprocess.run(command(LOCAL), stderr=output, check=False, timeout=LONGEST)
    before = "Nothing to be done" in log.read_text()
    return ("FAILED" if run.returncode else "finished"), ("before" if before else str(log))


def job_of(study: str) -> tuple[str, int]:
    """The id of the running job that measures this noise, and for how many seconds it has run."""
    for line in answer(
        "squeue", "--noheader", "--states=running", "--format=%i|%M|%k"
    ).splitlines():
        job, elapsed, comment = line.split("|")
        if comment.endswith(study):
            minutes, seconds = elapsed.split(":")[-2:]
            return job, 60 * int(minutes) + int(seconds)
    return "", 0


def hit(job: str, fault: str) -> None:
    # Whether it was in time, `recovered` finds out.
    subprocess.run([*fault.split(), job], check=False, timeout=30)
    if fault == "scontrol requeue":
        # At once, instead of in two minutes.
        happens(lambda: "PENDING" in answer("squeue", "--noheader", f"--jobs={job}", "--format=%T"))
        answer("scontrol", "update", f"JobId={job}", "StartTime=now")


def slurm_run() -> tuple[int, dict[str, str]]:
    """The miniature study by Slurm, two jobs of which are hit: its exit status, and their ids.

    Data and compiled programs are those of the local run.
    """
    shutil.rmtree(BY_SLURM, ignore_errors=True)
    for part in ["results/data", ".cache/jax"]:
        # With the time of now, or Snakemake would take them for older than the code.
        shutil.copytree(LOCAL / part, BY_SLURM / part, copy_function=shutil.copy)
    profile = ["--workflow-profile", str(ROOT / "profiles" / "slurm")]
    jobs: dict[str, str] = {}
    deadline = time.monotonic() + LONGEST
    with (
        (BY_SLURM / "snakemake.log").open("w") as log,
        subprocess.Popen(
            command(BY_SLURM, *profile, "--slurm-init-seconds-before-status-checks", "2"),
            stderr=log,
        ) as run,
    ):
        try:
            while not happens(lambda: run.poll() is not None, 1):
                if time.monotonic() > deadline:
                    raise subprocess.TimeoutExpired(run.args, LONGEST)
                for study in FAULTS.keys() - jobs:
                    job, seconds = job_of(study)
                    if seconds >= SECONDS_OF_START:
                        hit(job, FAULTS[study])
                        jobs[study] = job
        finally:
            run.terminate()
    return run.returncode, jobs


def recovered(study: str, job: str) -> tuple[str, str]:
    """Whether the job was hit at all, and made what it makes without."""
    name = f"noise/{study}.nc"
    was_hit = {
        "scancel": f"SLURM-job '{job}' failed, SLURM status is: 'CANCELLED'"
        in (BY_SLURM / "snakemake.log").read_text(),
        "scontrol requeue": "Restarts=1" in answer("scontrol", "show", "job", job),
    }[FAULTS[study]]
    if not was_hit:
        return "FAILED", f"the job of {name} was not hit"
    same = digests(BY_SLURM).get(name) == digests(LOCAL)[name]
    return ("recovered" if same else "FAILED"), name


def rows() -> Iterator[tuple[str, str, str, float]]:
    """What was done, how it ended, what that is about, and the seconds."""
    start = time.monotonic()
    outcome, which = local_run()
    yield "without Slurm", outcome, which, time.monotonic() - start
    if outcome == "FAILED":
        return
    start = time.monotonic()
    status, jobs = slurm_run()
    seconds = time.monotonic() - start
    if status != 0:
        yield "by Slurm", "FAILED", str(BY_SLURM / "snakemake.log"), seconds
        return
    wrong = differences(BY_SLURM, LOCAL)
    outcome = "FAILED" if wrong else "the same"
    yield "by Slurm", outcome, ", ".join(wrong) or f"{len(digests(LOCAL))} files", seconds
    for study, fault in FAULTS.items():
        yield (f"{fault} of a job", *recovered(study, jobs.get(study, "")), 0.0)


def test() -> int:
    """The table, and how many of its rows are wrong."""
    provide_slurm()
    with running_slurm():
        table = list(rows())
    for title, outcome, which, seconds in table:
        print(f"{title:26} {outcome:10} {f'{seconds:.0f} s' if seconds else '':>7}  {which}")
    return sum(outcome == "FAILED" for _, outcome, _, _ in table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--required", action="store_true", help="fail where it cannot be tested")
    arguments = parser.parse_args()
    # As Ctrl-C: what was started is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        return min(test(), 1)
    except subprocess.TimeoutExpired as late:
        print(
            f"slurm-test: FAILED: no end within {late.timeout:.0f} s: {late.cmd}", file=sys.stderr
        )
        return 1
    except NotTested as reason:
        print(f"slurm-test: not tested: {reason}", file=sys.stderr)
        return int(arguments.required)


if __name__ == "__main__":
    sys.exit(main())
