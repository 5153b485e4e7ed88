"""First passage of the 784-10-1 network, N = 10⁴, B = 10: function space against its alternatives.

Every contender checks the full-data loss after each step. Ratios are at one thread each, as the
study runs one job a core; the alternatives with two threads are shown beside.
"""

import sys
import tempfile
from pathlib import Path

from measurement import Contender, Measured, check_agreement, medians, report, verdict

HERE = Path(__file__).parent
ENGINE = [sys.executable, str(HERE / "contenders.py")]
PYTORCH = ["build/bench-venv/bin/python", str(HERE / "pytorch_loop.py")]
FAST = "function space, threads: 1"


def contenders(problem: str) -> list[Contender]:
    return [
        Contender(FAST, [*ENGINE, "function_space", "65536"], 1),
        *(
            contender
            for threads in (1, 2)
            for contender in (
                Contender(
                    f"JAX, full forward pass, threads: {threads}",
                    [*ENGINE, "full_forward_pass", "512"],
                    threads,
                ),
                Contender(
                    f"PyTorch, full forward pass, threads: {threads}",
                    [*PYTORCH, problem, "500"],
                    threads,
                ),
            )
        ),
    ]


def ratio(measured: Measured, alternative: str) -> float:
    slow = measured[f"{alternative}, full forward pass, threads: 1"]
    return measured[FAST]["steps_per_second"] / slow["steps_per_second"]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        problem = str(Path(folder) / "problem.npz")
        medians([Contender("data", [*ENGINE, "save_parity_problem", problem], 1)], repetitions=1)
        measured = medians(contenders(problem))
    check_agreement(measured, ("initial_loss",), rel_tol=1e-4)
    targets = [
        verdict("times the compiled JAX loop", ratio(measured, "JAX"), 60),
        verdict("times the PyTorch loop", ratio(measured, "PyTorch"), 40),
        verdict(
            "peak memory of the job, GB",
            measured[FAST]["peak_mebibytes"] * 2**20 / 1e9,
            1.5,
            at_least=False,
        ),
    ]
    report("First passage of the 784-10-1 network, N = 10000, B = 10", measured, targets)


if __name__ == "__main__":
    main()
