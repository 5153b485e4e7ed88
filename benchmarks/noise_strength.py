"""Loss and noise strength: layer by layer against BackPACK and against per-example gradients.

784-2000-2000-2000-10 on Fashion-MNIST and the convolutional network of section 5.2 on CIFAR-10,
mean-square loss, two threads. The alternatives take as many examples at once as is fastest.
"""

import sys
import tempfile
from pathlib import Path

from measurement import Contender, Measured, check_agreement, medians, report, verdict

HERE = Path(__file__).parent
JAX = [sys.executable, str(HERE / "noise_contenders.py")]
PYTORCH = ["build/bench-venv/bin/python", str(HERE / "pytorch_noise.py")]
THREADS = 2
METHODS = {
    "layer by layer": [*JAX, "layerwise"],
    "BackPACK": [*PYTORCH, "batch_l2_grad"],
    "JAX": [*JAX, "per_example"],
}
LAYERWISE, TEN_TIMES = "layer by layer", "layer by layer, ten times the examples"
BACKPACK, PER_EXAMPLE = "BackPACK, BatchL2Grad", "JAX, vmap(grad)"
BATCH, PER_EXAMPLE_BATCH = "layer by layer, batch of 100", "JAX, vmap(grad), batch of 100"


def contender(name: str, path: str, kind: str, examples: int, at_once: int) -> Contender:
    command = METHODS[name.split(",")[0]]
    return Contender(name, [*command, path, kind, str(examples), str(at_once)], THREADS)


def measure_dense(path: str) -> Measured:
    problem = path, "dense"
    return medians(
        [
            contender(LAYERWISE, *problem, 4000, 1000),
            contender(TEN_TIMES, *problem, 40_000, 1000),
            contender(BACKPACK, *problem, 8000, 2000),
            contender(PER_EXAMPLE, *problem, 100, 5),
        ]
    )


def measure_convolutional(path: str) -> Measured:
    problem = path, "convolutional"
    return medians(
        [
            contender(LAYERWISE, *problem, 200, 10),
            contender(BACKPACK, *problem, 200, 10),
            contender(PER_EXAMPLE, *problem, 200, 10),
            contender(BATCH, *problem, 100, 10),
            contender(PER_EXAMPLE_BATCH, *problem, 100, 100),
        ]
    )


def times(measured: Measured, fast: str, slow: str) -> float:
    return measured[fast]["steps_per_second"] / measured[slow]["steps_per_second"]


def growth(measured: Measured, small: str, large: str) -> float:
    return measured[large]["peak_mebibytes"] / measured[small]["peak_mebibytes"]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = {kind: str(Path(folder) / f"{kind}.npz") for kind in ("dense", "convolutional")}
        for kind, examples in (("dense", "40000"), ("convolutional", "200")):
            save = [*JAX, "save_problem", paths[kind], kind, examples]
            medians([Contender("data", save, THREADS)], repetitions=1)
        dense = measure_dense(paths["dense"])
        convolutional = measure_convolutional(paths["convolutional"])
    for measured in (dense, convolutional):
        check_agreement(measured, ("loss", "noise_strength"), rel_tol=1e-3)
    targets = [
        verdict("times vmap(grad)", times(dense, TEN_TIMES, PER_EXAMPLE), 25),
        verdict("times BackPACK", times(dense, TEN_TIMES, BACKPACK), 1),
        verdict(
            "times the memory at ten times the examples",
            growth(dense, LAYERWISE, TEN_TIMES),
            1.05,
            at_least=False,
        ),
    ]
    report("Noise strength, 784-2000-2000-2000-10", dense, targets, unit="examples/s")
    targets = [
        verdict("times BackPACK", times(convolutional, LAYERWISE, BACKPACK), 1.5),
        verdict("times vmap(grad)", times(convolutional, LAYERWISE, PER_EXAMPLE), 1),
        verdict(
            "vmap(grad)'s memory in ours, batch of 100",
            growth(convolutional, BATCH, PER_EXAMPLE_BATCH),
            3,
        ),
    ]
    report("Noise strength, CNN 64-128-256", convolutional, targets, unit="examples/s")


if __name__ == "__main__":
    main()
