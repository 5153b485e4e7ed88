"""The PyTorch contenders of the noise: python pytorch_noise.py NAME ARGUMENTS prints JSON.

Runs in an environment of its own that has PyTorch, BackPACK and NumPy.
"""

import json
import os
import sys
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from backpack import backpack, extend
from backpack.extensions import BatchL2Grad
from measurement import timed

CHECKED_EXAMPLES = 100
BATCH_SIZE, LEARNING_RATE, CHECKED_STEPS = 100, 0.1, 3
Problem = tuple[torch.nn.Module, torch.Tensor, torch.Tensor]

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
# BackPACK's hooks ask for gradients of parameters alone, which PyTorch remarks on.
warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)


def layers(kind: str) -> Iterator[torch.nn.Module]:
    if kind == "dense":
        for _ in range(3):
            yield from (torch.nn.LazyLinear(2000), torch.nn.ReLU())
    else:
        for width in (64, 128, 256):
            for _ in range(3):
                yield from (torch.nn.LazyConv2d(width, 3, padding=1), torch.nn.ReLU())
            yield torch.nn.MaxPool2d(2)
        yield torch.nn.Flatten()
    yield torch.nn.LazyLinear(10)


def torch_order(array: torch.Tensor, columns: int | None) -> torch.Tensor:
    """Outputs first; a dense layer after images reads channels before pixels here."""
    if array.ndim == 4:
        return array.permute(3, 2, 0, 1)
    if columns:
        array = array.reshape(-1, columns, array.shape[-1]).swapaxes(0, 1).flatten(0, 1)
    return array.T


def load_problem(path: str, kind: str) -> Problem:
    saved = np.load(path)
    inputs, labels = torch.from_numpy(saved["inputs"]), torch.from_numpy(saved["labels"])
    network = torch.nn.Sequential(*layers(kind))
    if kind == "convolutional":
        inputs = inputs.permute(0, 3, 1, 2)
    with torch.no_grad():
        network(inputs[:1])
        # For images a layout that PyTorch trains faster with; dense layers have only one.
        network.to(memory_format=torch.channels_last)
        channels = None
        for i, parameter in enumerate(network.parameters()):
            array = torch.from_numpy(saved[f"array{i}"])
            parameter.copy_(torch_order(array, channels) if array.ndim > 1 else array)
            channels = array.shape[-1] if array.ndim == 4 else channels
    return network, inputs, labels


def summed_loss(problem: Problem) -> torch.Tensor:
    """Σ ℓ_μ of the mean-square loss, Eq. (1)."""
    network, inputs, labels = problem
    return 0.5 * torch.sum((network(inputs) - labels) ** 2)


def batch_l2_grad(path: str, kind: str, examples: str, examples_at_once: str) -> dict[str, float]:
    """Loss and noise strength from BackPACK's squared norms of the examples' gradients."""
    network, inputs, labels = load_problem(path, kind)
    extend(network)

    def loss_and_noise(n: int) -> tuple[float, float]:
        network.zero_grad()
        loss = squares = 0.0
        for start in range(0, n, int(examples_at_once)):
            rows = slice(start, min(n, start + int(examples_at_once)))
            with backpack(BatchL2Grad()):
                chunk_loss = summed_loss((network, inputs[rows], labels[rows]))
                chunk_loss.backward()
            loss += chunk_loss.item()
            squares += sum(p.batch_l2.sum(dtype=torch.float64).item() for p in network.parameters())
        mean = sum(torch.sum((p.grad / n) ** 2).item() for p in network.parameters())
        return loss / n, squares / n - mean

    measured = timed(loss_and_noise, int(examples))
    loss, noise = loss_and_noise(CHECKED_EXAMPLES)
    return measured | {"loss": loss, "noise_strength": noise}


def training_step(path: str, kind: str, examples: str) -> dict[str, float]:
    """Plain SGD, batch after batch; every call goes on from the last one's network."""
    network, inputs, labels = load_problem(path, kind)
    optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE)
    batches = list(zip(inputs.split(BATCH_SIZE), labels.split(BATCH_SIZE), strict=True))

    def batch_loss(step: int) -> torch.Tensor:
        return summed_loss((network, *batches[step % len(batches)])) / BATCH_SIZE

    def run(n: int) -> None:
        for step in range(n // BATCH_SIZE):
            optimizer.zero_grad()
            batch_loss(step).backward()
            optimizer.step()

    run(CHECKED_STEPS * BATCH_SIZE)
    with torch.no_grad():
        loss = batch_loss(CHECKED_STEPS).item()
    return timed(run, int(examples)) | {"loss": loss}


CONTENDERS = {contender.__name__: contender for contender in (batch_l2_grad, training_step)}

if __name__ == "__main__":
    print(json.dumps(CONTENDERS[sys.argv[1]](*sys.argv[2:])))
