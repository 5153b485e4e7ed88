import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgd_escape import SgdEscapeError
from sgd_escape.checkpoints import Checkpoint, resumable

PASSES = 40
# Trains a small convolutional network on cross-entropy, a checkpoint after every pass.
PROGRAM = f"""
import sys
import jax, jax.numpy as jnp, numpy as np
from sgd_escape.batches import Epoch
from sgd_escape.checkpoints import Checkpoint, resumable
from sgd_escape.losses import cross_entropy_loss
from sgd_escape.networks import init_convolutional_network
from sgd_escape.training import train_one_pass

folder, output = sys.argv[1:]
key = jax.random.key(3)
inputs = jax.random.uniform(key, (60, 8, 8, 3), jnp.float32)
labels = jnp.eye(10, dtype=jnp.float32)[jnp.arange(60) % 10]
network = init_convolutional_network(key, 8, 3, (4, 8), 10, layers_per_stack=1)

def advance(state, part):
    network, norms = state
    network = train_one_pass(
        network, inputs, labels, Epoch(60, 10), key, part, jnp.float32(0.05), cross_entropy_loss
    )
    norms[part] = float(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(network)))
    print(part, flush=True)
    return network, norms

checkpoint = Checkpoint(folder, {{"study": 1}})
state = resumable(advance, (network, np.zeros({PASSES})), {PASSES}, checkpoint, seconds=0)
np.savez(output, *jax.tree.leaves(state))
"""


def arrays(path: Path) -> list[np.ndarray]:
    with np.load(path) as stored:
        return [stored[name] for name in stored.files]


def test_a_training_killed_twice_ends_like_the_undisturbed_one_bit_for_bit(tmp_path: Path) -> None:
    def command(folder: str) -> list[str]:
        return [sys.executable, "-c", PROGRAM, str(tmp_path / folder), f"{tmp_path}/{folder}.npz"]

    subprocess.run(command("undisturbed"), check=True, capture_output=True)
    starts = []
    for kill_after in [5, 17, None]:
        with subprocess.Popen(command("killed"), stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            parts = []
            for line in process.stdout:
                parts.append(int(line))
                if parts[-1] == kill_after:
                    process.send_signal(signal.SIGKILL)
        starts.append(parts[0])
    # A kill may hit the save of the last part that was reported, which is then done again.
    assert starts[0] == 0
    assert 5 <= starts[1] <= 9
    assert 17 <= starts[2] <= 21
    killed, undisturbed = (arrays(tmp_path / f"{name}.npz") for name in ["killed", "undisturbed"])
    for one, other in zip(killed, undisturbed, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype


def test_a_checkpoint_keeps_types_shapes_and_scalars(tmp_path: Path) -> None:
    state = {"a": jnp.ones((2, 3), jnp.float32), "b": (np.float64(2.5), np.arange(4))}
    checkpoint = Checkpoint(tmp_path / "new" / "folder", {"eta": 0.1})
    checkpoint.save(7, state)
    done, loaded = checkpoint.load(state)
    assert done == 7
    for one, other in zip(jax.tree.leaves(loaded), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype


def test_work_of_another_identity_starts_afresh(tmp_path: Path) -> None:
    Checkpoint(tmp_path, {"eta": 0.1, "code": "1"}).save(7, np.ones(2))
    for identity in [{"eta": 0.1, "code": "2"}, {"eta": 0.2, "code": "1"}]:
        done, state = Checkpoint(tmp_path, identity).load(np.zeros(2))
        assert done == 0
        np.testing.assert_array_equal(state, 0)
    assert Checkpoint(tmp_path, {"code": "1", "eta": 0.1}).load(np.zeros(2))[0] == 7


def test_a_damaged_checkpoint_counts_as_none(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, {})
    checkpoint.save(3, np.ones(5))
    content = bytearray(checkpoint.path.read_bytes())
    content[len(content) // 2] ^= 1
    checkpoint.path.write_bytes(content)
    assert checkpoint.load(np.zeros(5))[0] == 0


def test_a_removed_checkpoint_is_gone_and_may_be_removed_again(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, {})
    checkpoint.save(3, np.ones(5))
    checkpoint.remove()
    checkpoint.remove()
    assert list(tmp_path.iterdir()) == []
    assert checkpoint.load(np.zeros(5))[0] == 0


def test_work_that_was_finished_is_not_done_again(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, {})
    counted = resumable(lambda state, part: state + part, np.zeros(()), 5, checkpoint, seconds=0)
    assert counted == 10

    def never(state: np.ndarray, part: int) -> np.ndarray:
        raise AssertionError(f"part {part} was done again")

    assert resumable(never, np.zeros(()), 5, checkpoint) == 10


def test_saves_are_as_far_apart_as_asked_for(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, {})
    resumable(lambda state, part: state, np.zeros(()), 100, checkpoint, seconds=60)
    assert not checkpoint.path.exists()

    def slow(state: np.ndarray, part: int) -> np.ndarray:
        time.sleep(0.02)
        return state

    resumable(slow, np.zeros(()), 10, checkpoint, seconds=0.05)
    assert 3 <= checkpoint.load(np.zeros(()))[0] <= 10


def test_a_checkpoint_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SgdEscapeError, match=r"was not written: .* then run the same command"):
        Checkpoint(tmp_path / "file", {}).save(1, np.ones(1))
