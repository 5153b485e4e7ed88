import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgd_escape.batches import (
    SAMPLINGS,
    Batches,
    Epoch,
    GaussianIncrements,
    Sampling,
    WithReplacement,
    passes,
    stream_key,
)

KEY = jax.random.key(0)
RULES = [WithReplacement(50, 4, 8), WithReplacement(7, 7), Epoch(48, 4), Epoch(50, 7)]
NOISE = GaussianIncrements(3, 16)


def draw_blocks(batches: Batches, blocks: int) -> np.ndarray:
    draw = jax.jit(jax.vmap(batches.draw, (None, 0)))
    return np.asarray(draw(KEY, jnp.arange(blocks)))


@pytest.mark.parametrize("batches", RULES, ids=str)
def test_a_block_holds_valid_indices_of_all_its_steps(batches: Batches) -> None:
    block = batches.draw(KEY, jnp.asarray(3))
    assert block.shape == (batches.steps_per_block, batches.batch_size)
    assert block.dtype == jnp.int32
    assert 0 <= int(block.min()) <= int(block.max()) < batches.n_samples


@pytest.mark.parametrize("batches", [*RULES, NOISE], ids=str)
def test_a_block_depends_on_key_and_number_alone_not_on_who_draws_it(batches: Batches) -> None:
    together = draw_blocks(batches, 6)
    other_keys = jax.vmap(lambda r: jax.random.fold_in(KEY, r))(jnp.arange(5))
    by_key = jax.vmap(batches.draw)(other_keys, jnp.arange(5))
    for block in (5, 0, 3):
        assert np.array_equal(together[block], batches.draw(KEY, jnp.asarray(block)))
    for r in (4, 1):
        alone = batches.draw(jax.random.fold_in(KEY, r), jnp.asarray(r))
        assert np.array_equal(by_key[r], alone)


@pytest.mark.parametrize("batches", [*RULES, NOISE], ids=str)
def test_blocks_and_keys_differ(batches: Batches) -> None:
    first, second = draw_blocks(batches, 2)
    other = batches.draw(jax.random.key(1), jnp.asarray(0))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_an_epoch_shows_every_sample_once() -> None:
    blocks = draw_blocks(Epoch(48, 4), 20)
    assert blocks.shape == (20, 12, 4)
    assert np.array_equal(np.sort(blocks.reshape(20, 48), axis=1), np.tile(np.arange(48), (20, 1)))


def test_an_epoch_whose_batches_do_not_divide_the_data_repeats_no_sample() -> None:
    blocks = draw_blocks(Epoch(50, 7), 20)
    assert blocks.shape == (20, 7, 7)
    assert all(np.unique(block).size == 49 for block in blocks)
    assert np.unique(blocks).size == 50


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_pass_has_as_many_steps_as_the_data_have_batches(sampling: Sampling) -> None:
    batches = passes(sampling, 50, 7)
    assert type(batches) is type(SAMPLINGS[sampling](50, 7))
    assert batches.draw(KEY, jnp.asarray(0)).shape == (7, 7)


def chi_square_is_plausible(counts: np.ndarray) -> bool:
    expected = counts.sum() / counts.size
    chi_square = np.sum((counts - expected) ** 2) / expected
    freedom = counts.size - 1
    # χ² has variance 2·freedom; too even is as suspicious as too uneven.
    return abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)


def test_with_replacement_draws_every_sample_equally_often() -> None:
    indices = draw_blocks(WithReplacement(100, 10), 100)
    assert indices.shape == (100, 128, 10)
    assert chi_square_is_plausible(np.bincount(indices.ravel(), minlength=100))


def test_with_replacement_draws_pairs_independently() -> None:
    n = 20
    indices = draw_blocks(WithReplacement(n, 2), 200)
    within = indices[..., 0] * n + indices[..., 1]
    between = indices[:, :-1, 0] * n + indices[:, 1:, 0]
    for pairs in (within, between):
        assert chi_square_is_plausible(np.bincount(pairs.ravel(), minlength=n * n))


def test_an_epoch_puts_each_sample_first_equally_often() -> None:
    first = draw_blocks(Epoch(20, 5), 4000)[:, 0, 0]
    assert chi_square_is_plausible(np.bincount(first, minlength=20))


def test_gaussian_increments_are_independent_standard_normal_numbers() -> None:
    noise = draw_blocks(NOISE, 4000)
    assert noise.shape == (4000, 16, 3)
    assert noise.dtype == np.float64
    error = 1 / np.sqrt(noise.size)
    assert abs(noise.mean()) < 4 * error
    # The variances of x² and x⁴ are 2 and 96.
    assert abs((noise**2).mean() - 1) < 4 * np.sqrt(2) * error
    assert abs((noise**4).mean() - 3) < 4 * np.sqrt(96) * error
    values = noise.reshape(4000, 48)
    correlation = np.corrcoef(values, rowvar=False)[~np.eye(48, dtype=bool)]
    # The largest of 1128 correlations of pairs, each of standard error 1/√4000.
    assert abs(correlation).max() < 5 / np.sqrt(4000)


def test_the_samplings_of_the_configuration_are_the_two_rules() -> None:
    assert dict(SAMPLINGS) == {"with_replacement": WithReplacement, "epoch": Epoch}
    assert SAMPLINGS["epoch"](12, 3) == Epoch(12, 3)


def bits(*labels: float, seed: int = 0) -> bytes:
    return np.asarray(jax.random.key_data(stream_key(seed, *labels))).tobytes()


def test_streams_of_different_labels_or_seeds_differ() -> None:
    keys = {
        bits(0.1, 1),
        bits(1, 0.1),
        bits(0.1, 2),
        bits(0.1),
        bits(0.1, 1, 1),
        bits(np.nextafter(0.1, 1).item(), 1),
        bits(0.1, 1, seed=1),
        bits(),
    }
    assert len(keys) == 8


def test_a_stream_does_not_depend_on_how_a_number_is_spelled() -> None:
    assert bits(1, 10) == bits(1.0, 1e1)
    assert bits(0.1, 1) == bits(float("1e-1"), 1.0)
