"""First passage of linear regression, d = 1, N = 10⁴, B = 1, η = 0.1: run-steps a second.

Two processes side by side, each held to one thread, as Snakemake runs two jobs on two cores.
"""

import sys
from pathlib import Path

from measurement import Contender, medians, report, verdict

ENGINE = [sys.executable, str(Path(__file__).parent / "contenders.py")]
FAST, SHORT = "engine, 2 processes", "engine, 2 processes, a tenth of the steps"
NUMPY = "NumPy loop, 2 processes"


def main() -> None:
    measured = medians(
        [
            Contender(FAST, [*ENGINE, "linear_regression", "400000"], 1, processes=2),
            Contender(SHORT, [*ENGINE, "linear_regression", "40000"], 1, processes=2),
            Contender(NUMPY, [*ENGINE, "numpy_loop", "50000"], 1, processes=2),
        ]
    )
    memory = {name: row["peak_mebibytes"] for name, row in measured.items()}
    speed = {name: row["steps_per_second"] for name, row in measured.items()}
    growth = memory[FAST] / memory[SHORT]
    targets = [
        verdict("million run-steps a second", speed[FAST] / 1e6, 15),
        verdict("times the memory at ten times the steps", growth, 1.05, at_least=False),
        f"times the NumPy loop: {speed[FAST] / speed[NUMPY]:.3g} (no target)",
    ]
    report("First passage of linear regression, d = 1, N = 10000, B = 1", measured, targets)


if __name__ == "__main__":
    main()
