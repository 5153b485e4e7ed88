"""Mean passage time of linear regression to c = 2.3, about 10⁶ steps: splitting against simulation.

What counts is precision: n exponential times give a mean with the relative error 1/√n, so an error
ε of splitting is worth 1/ε² plain passages.
"""

import sys
from pathlib import Path

from measurement import Contender, check_agreement, medians, report, verdict

ENGINE = [sys.executable, str(Path(__file__).parent / "contenders.py")]
SPLITTING, PLAIN = "splitting", "plain simulation"


def main() -> None:
    measured = medians(
        [
            Contender(SPLITTING, [*ENGINE, "splitting", "8"], 1),
            Contender(PLAIN, [*ENGINE, "plain_passages", "4"], 1),
        ]
    )
    # Both know log τ to a few hundredths, of 14.
    check_agreement(measured, ["log_mean"], rel_tol=0.02)
    speed = {name: row["steps_per_second"] for name, row in measured.items()}
    target = verdict("times the precision a second", speed[SPLITTING] / speed[PLAIN], 5)
    title = "Passage to c = 2.3, d = 1, N = 10000, B = 1"
    report(title, measured, [target], unit="passages/s")


if __name__ == "__main__":
    main()
