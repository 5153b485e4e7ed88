"""One spectrum of Fig. 1: both matrices of Eq. (7) by the N × N route, N = 10⁴, 784-100-100-1."""

import sys
from pathlib import Path

from measurement import Contender, medians, report, verdict

JAX = [sys.executable, str(Path(__file__).parent / "noise_contenders.py")]
SPECTRUM = "Gram matrix and two spectra, float64"


def main() -> None:
    measured = medians([Contender(SPECTRUM, [*JAX, "spectrum", "10000"], 2)], repetitions=1)
    gigabytes = measured[SPECTRUM]["peak_mebibytes"] * 2**20 / 1e9
    targets = [
        verdict("peak memory, GB", gigabytes, 4, at_least=False),
        f"seconds: {10_000 / measured[SPECTRUM]['steps_per_second']:.3g} (no target)",
    ]
    report("Spectra of Eq. (7), N = 10000", measured, targets, unit="examples/s")


if __name__ == "__main__":
    main()
