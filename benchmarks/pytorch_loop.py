"""A plain PyTorch loop over the same problem: python pytorch_loop.py PROBLEM.npz STEPS prints JSON.

Runs in an environment of its own that has PyTorch and NumPy.
"""

import json
import os
import sys

import numpy as np
import torch
from measurement import timed

BATCH_SIZE, LEARNING_RATE = 10, 0.006

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
problem = {name: torch.from_numpy(array) for name, array in np.load(sys.argv[1]).items()}
inputs, labels = problem["inputs"], problem["labels"][:, None]

network = torch.nn.Sequential(
    torch.nn.Linear(inputs.shape[1], problem["hidden_bias"].numel()),
    torch.nn.ReLU(),
    torch.nn.Linear(problem["hidden_bias"].numel(), 1),
)
with torch.no_grad():
    for layer, name in ((network[0], "hidden"), (network[2], "output")):
        layer.weight.copy_(problem[f"{name}_weight"].T)
        layer.bias.copy_(problem[f"{name}_bias"])
optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE)


def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Mean-square loss, Eq. (1)."""
    return 0.5 * torch.mean((network(x) - y) ** 2)


@torch.no_grad()
def full_loss() -> float:
    return loss_of(inputs, labels).item()


def run(max_steps: int) -> None:
    for _ in range(max_steps):
        batch = torch.randint(len(labels), (BATCH_SIZE,))
        optimizer.zero_grad()
        loss_of(inputs[batch], labels[batch]).backward()
        optimizer.step()
        if full_loss() > 1e6 * initial_loss:
            break


initial_loss = full_loss()
print(json.dumps(timed(run, int(sys.argv[2])) | {"initial_loss": initial_loss}))
