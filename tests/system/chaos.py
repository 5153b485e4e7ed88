"""Faults done to the pipeline, at moments and places of a seeded generator, and what becomes of it.

python tests/system/chaos.py [--seed 1] [--kills 20] [--faults kill,disk]

After each, the same command has to finish, or to say in one line what to do and to finish after
that; and the arrays have to equal those of an undisturbed run. Writes build/chaos/outcomes.md;
the exit status is not 0 where anything ended otherwise.
"""

import argparse
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterable
from random import Random, SystemRandom

from faults import FAULTS
from outcome import Outcome
from pipeline import ROOT, NotTried, Pipeline

PLACE = ROOT / "build" / "chaos"
HEADER = ["fault", "where", "tried", "what the user sees", "then"]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10**6))
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--faults", default=",".join(FAULTS), help=", ".join(FAULTS))
    parser.add_argument("--required", action="store_true", help="fail where a fault is not tried")
    return parser.parse_args()


def tried(pipeline: Pipeline, name: str, seed: int, kills: int) -> Iterable[Outcome]:
    """Its own generator for each fault: it does the same with and without the others."""
    try:
        for outcome in FAULTS[name](pipeline, Random(f"{seed} {name}"), kills):
            verdict = "; ".join(outcome.wrong) or "as promised"
            print(f"{outcome.fault}, {outcome.where}: {verdict}", flush=True)
            yield outcome
    except NotTried as reason:
        print(f"{name}: not tried, {reason}", flush=True)
        yield Outcome(name, "", f"not tried: {reason}", "", tried=False)
    except Exception:
        traceback.print_exc()
        yield Outcome(name, "", "", "", ["the harness itself failed, see what it printed"])


def table(outcomes: list[Outcome]) -> str:
    """A line for each fault and what follows from it."""
    rows: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        rows.setdefault((outcome.fault, outcome.then), []).append(outcome)
    lines = [HEADER, ["---"] * len(HEADER)]
    for (fault, then), alike in rows.items():
        places = ", ".join(sorted({outcome.where for outcome in alike} - {""}))
        seen = next((outcome.seen for outcome in alike if outcome.seen), "nothing")
        wrong = sorted({text for outcome in alike for text in outcome.wrong})
        end = "; ".join(["**wrong**", *wrong]) if wrong else then
        lines.append([fault, places, str(sum(outcome.tried for outcome in alike)), seen, end])
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def main() -> int:
    options = arguments()
    names = options.faults.split(",")
    unknown = [name for name in names if name not in FAULTS]
    if unknown:
        sys.exit(f"error: {', '.join(unknown)}: no such fault. Choose among {', '.join(FAULTS)}")
    print(f"seed {options.seed}", flush=True)
    # Where a shell started this in the background, it and all it starts would be deaf to Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # As Ctrl-C: what runs is killed, what is mounted is unmounted.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    begin = time.monotonic()
    logs = PLACE / "logs"
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    pipeline = Pipeline(PLACE / "runs", logs)
    print(f"an undisturbed run took {pipeline.seconds:.0f} s", flush=True)
    outcomes: list[Outcome] = []
    for name in names:
        outcomes += tried(pipeline, name, options.seed, options.kills)
        (PLACE / "outcomes.md").write_text(table(outcomes) + "\n", encoding="utf-8")
    wrong = sum(bool(outcome.wrong) for outcome in outcomes)
    not_tried = sum(not outcome.tried for outcome in outcomes)
    minutes = (time.monotonic() - begin) / 60
    print(
        f"seed {options.seed}: {len(outcomes) - not_tried} faults, {wrong} of them ended wrong, "
        f"{not_tried} kinds not tried to their end, {minutes:.0f} minutes; "
        f"see {PLACE / 'outcomes.md'}"
    )
    return int(wrong > 0 or (options.required and not_tried > 0))


if __name__ == "__main__":
    sys.exit(main())
