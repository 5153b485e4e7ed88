"""SGD steps of the convolutional network of section 5.2, batch of 100: this package, PyTorch.

CIFAR-10, mean-square loss, η = 0.1, two threads.
"""

import sys
import tempfile
from pathlib import Path

from measurement import Contender, check_agreement, medians, report, verdict

HERE = Path(__file__).parent
JAX = [sys.executable, str(HERE / "noise_contenders.py")]
PYTORCH = ["build/bench-venv/bin/python", str(HERE / "pytorch_noise.py")]
THREADS = 2
OURS, THEIRS = "this package, compiled loop", "PyTorch"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        problem = [str(Path(folder) / "problem.npz"), "convolutional"]
        save = [*JAX, "save_problem", *problem, "400"]
        medians([Contender("data", save, THREADS)], repetitions=1)
        measured = medians(
            [
                Contender(OURS, [*JAX, "training_step", *problem, "400"], THREADS),
                Contender(THEIRS, [*PYTORCH, "training_step", *problem, "400"], THREADS),
            ]
        )
    check_agreement(measured, ("loss",), rel_tol=1e-3)
    speed = {name: row["steps_per_second"] for name, row in measured.items()}
    gigabytes = measured[OURS]["peak_mebibytes"] * 2**20 / 1e9
    targets = [
        verdict("times PyTorch", speed[OURS] / speed[THEIRS], 1),
        verdict("peak memory, GB", gigabytes, 6, at_least=False),
    ]
    report("SGD steps of the CNN 64-128-256, B = 100", measured, targets, unit="examples/s")


if __name__ == "__main__":
    main()
