import itertools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgd_escape import checkpoints
from sgd_escape import noise_dynamics as dynamics
from sgd_escape.batches import Epoch
from sgd_escape.checkpoints import Checkpoint
from sgd_escape.gradient_noise import NoiseStrength, noise_strength, trace_factor
from sgd_escape.losses import PerExampleLoss, cross_entropy_loss, mean_square_loss
from sgd_escape.networks import Network, init_convolutional_network, init_network
from sgd_escape.noise_dynamics import NoiseDynamics, noise_dynamics, spaced_epochs
from sgd_escape.training import train

KEY = jax.random.key(2)
EPOCHS, TRACE_EPOCHS = 4, [0, 1, 4]


def classes(n: int, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    labels = np.eye(3, dtype=np.float32)[rng.integers(3, size=n)]
    return rng.uniform(size=(n, *shape)).astype(np.float32), labels


def measure(
    folder: Path,
    network: Network,
    data: tuple[np.ndarray, np.ndarray],
    loss: PerExampleLoss = mean_square_loss,
    rate: float = 0.1,
) -> NoiseDynamics:
    return noise_dynamics(
        network,
        *data,
        Epoch(len(data[0]), 10),
        KEY,
        loss,
        Checkpoint(folder, {}),
        learning_rate=rate,
        epochs=EPOCHS,
        trace_epochs=TRACE_EPOCHS,
        examples_at_once=10,
    )


@pytest.mark.parametrize("loss", [mean_square_loss, cross_entropy_loss])
def test_every_epoch_is_measured_on_the_network_that_plain_training_gives(
    tmp_path: Path, loss: PerExampleLoss
) -> None:
    data, network = classes(40, 6), init_network(KEY, [6, 5, 3])
    measured = measure(tmp_path, network, data, loss)
    assert {array.shape for array in measured} == {(EPOCHS + 1,)}
    for epoch in range(EPOCHS + 1):
        expected = network
        if epoch:
            batches = Epoch(40, 10)
            expected = train(
                network,
                *map(jnp.asarray, data),
                batches,
                KEY,
                learning_rate=0.1,
                steps=4 * epoch,
                loss=loss,
            ).network
        noise = noise_strength(expected, *map(jnp.asarray, data), loss, examples_at_once=10)
        assert measured.loss[epoch] == noise.loss
        assert measured.noise_strength[epoch] == noise.noise_strength
        assert measured.squared_mean_gradient[epoch] == noise.squared_mean_gradient
        if epoch in TRACE_EPOCHS:
            factor = trace_factor(expected, *map(jnp.asarray, data), loss, examples_at_once=10)
            assert measured.trace_factor[epoch] == factor.mean
            assert measured.weighted_trace_factor[epoch] == factor.weighted
        else:
            assert np.isnan(measured.trace_factor[epoch])
            assert np.isnan(measured.weighted_trace_factor[epoch])
    assert measured.loss[-1] < measured.loss[0]


def test_a_measurement_broken_off_and_resumed_equals_the_undisturbed_one_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, network = classes(40, 6), init_network(KEY, [6, 5, 3])
    undisturbed = measure(tmp_path / "undisturbed", network, data)
    # A clock that leaps makes every epoch save its state; the fourth measurement never ends.
    clock = itertools.count(step=100)
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: next(clock))
    calls = itertools.count()

    def broken_off(*arguments: Any, **options: Any) -> NoiseStrength:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return noise_strength(*arguments, **options)

    monkeypatch.setattr(dynamics, "noise_strength", broken_off)
    with pytest.raises(KeyboardInterrupt):
        measure(tmp_path / "broken", network, data)
    assert Checkpoint(tmp_path / "broken", {}).path.exists()
    resumed = measure(tmp_path / "broken", network, data)
    # Two of five epochs were left to do.
    assert next(calls) == 4 + 2
    for one, other in zip(resumed, undisturbed, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_convolutional_network_is_measured_too(tmp_path: Path) -> None:
    network = init_convolutional_network(KEY, 4, 3, (2, 4), 3, layers_per_stack=1)
    measured = measure(tmp_path, network, classes(20, 4, 4, 3))
    assert np.isfinite(measured.noise_strength).all()
    assert (measured.noise_strength > 0).all()


def test_a_training_that_diverges_has_numbers_up_to_then_and_none_afterwards(
    tmp_path: Path,
) -> None:
    network = init_network(KEY, [6, 5, 3])
    measured = measure(tmp_path, network, classes(40, 6), rate=1000.0)
    assert np.isfinite(measured.loss[0])
    assert np.isnan(measured.loss[-1])
    for array in measured[1:3]:
        np.testing.assert_array_equal(np.isnan(array), np.isnan(measured.loss))
    # A finite loss never follows one that was not.
    assert np.all(np.diff(np.isnan(measured.loss).astype(int)) >= 0)


@pytest.mark.parametrize(("epochs", "count"), [(1, 3), (7, 4), (300, 3), (300, 20), (5, 40)])
def test_spaced_epochs_hold_both_ends_and_no_epoch_twice(epochs: int, count: int) -> None:
    spaced = spaced_epochs(epochs, count)
    assert spaced[0] == 0
    assert spaced[-1] == epochs
    assert len(set(spaced)) == len(spaced) <= min(count, epochs + 1)
    assert spaced == sorted(spaced)


def test_spaced_epochs_are_even_in_their_logarithm() -> None:
    ratios = np.diff(np.log(spaced_epochs(10**6, 7)[1:]))
    # The smallest, 16, is rounded by up to 3 %.
    np.testing.assert_allclose(ratios, np.log(10**6) / 5, rtol=0.01)
