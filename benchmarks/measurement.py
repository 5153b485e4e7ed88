"""Each contender runs in a process of its own, held to its threads, in turn with the others."""

import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = Path("build/benchmarks.json")
THREAD_VARIABLES = ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


Measured = dict[str, dict[str, float]]


class Contender(NamedTuple):
    """A command that prints the JSON of `timed`, its number of threads, and how many copies run."""

    name: str
    command: Sequence[str]
    threads: int
    processes: int = 1


def timed(run: Callable[[int], object], steps: int) -> dict[str, float]:
    """Called in the contender: steps a second of `run(steps)`, after a quarter of it as warm-up."""
    run(steps // 4)
    cpu, wall = time.process_time(), time.perf_counter()
    run(steps)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "steps_per_second": steps / wall,
        "cores_used": cpu / wall,
        "peak_mebibytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20,
    }


def medians(contenders: Sequence[Contender], repetitions: int = 3) -> Measured:
    """The median of each measured number. Contenders take turns, so that all see the same noise."""
    measured: dict[str, list[dict[str, float]]] = {contender.name: [] for contender in contenders}
    for _ in range(repetitions):
        for contender in contenders:
            measured[contender.name].append(_measure(contender))
    return {
        name: {key: statistics.median(one[key] for one in several) for key in several[0]}
        for name, several in measured.items()
    }


def _measure(contender: Contender) -> dict[str, float]:
    """Copies run side by side; speeds and cores add up, of the memory the largest counts."""
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(contender.threads))
    running = [
        subprocess.Popen(contender.command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(contender.processes)
    ]
    outputs = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        sys.exit(f"error: the benchmark '{contender.name}' failed; its message stands above")
    copies = [json.loads(output) for output in outputs]
    combine = {"steps_per_second": sum, "cores_used": sum}
    return {key: combine.get(key, max)(copy[key] for copy in copies) for key in copies[0]}


def check_agreement(measured: Measured, names: Sequence[str], *, rel_tol: float) -> None:
    """Ends the benchmark unless all contenders computed the same numbers."""
    for name in names:
        values = {contender: row[name] for contender, row in measured.items()}
        first, *others = values.values()
        if not all(math.isclose(value, first, rel_tol=rel_tol) for value in others):
            sys.exit(f"error: the contenders disagree about the {name}, {values}; compare them")


def report(
    title: str, measured: Measured, targets: Sequence[str], *, unit: str = "steps/s"
) -> None:
    """Print one benchmark and add it to build/benchmarks.json."""
    print(f"\n{title}\n{'':42}{unit:>14}{'cores':>8}{'peak MiB':>10}")
    for name, row in measured.items():
        print(
            f"{name:42}{_three_digits(row['steps_per_second']):>14}"
            f"{row['cores_used']:8.2f}{row['peak_mebibytes']:10,.0f}"
        )
    print(*targets, sep="\n")
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results[title] = {"measured": measured, "targets": list(targets)}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


def _three_digits(speed: float) -> str:
    return f"{speed:,.0f}" if speed >= 100 else f"{speed:.3g}"


def verdict(what: str, value: float, target: float, *, at_least: bool = True) -> str:
    """One line: the value, its target and whether it was met."""
    met = value >= target if at_least else value <= target
    bound = "at least" if at_least else "at most"
    return f"{what}: {value:,.4g} ({bound} {target:,g}: {'met' if met else 'missed'})"
