from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgd_escape.batches import Epoch, GaussianIncrements, WithReplacement
from sgd_escape.chains import (
    Chain,
    FreshRegression,
    FunctionSpaceNetwork,
    GenericNetwork,
    LinearRegression,
    TrackedNetwork,
    gaussian_regression,
)
from sgd_escape.networks import Network, init_network
from sgd_escape.training import full_loss, train

KEY = jax.random.key(11)


def batches_of_many_steps(n_samples: int, batch_size: int, steps: int) -> jax.Array:
    return WithReplacement(n_samples, batch_size, steps).draw(KEY, jnp.asarray(0))


@jax.jit
def losses_along(chain: Chain, batches: jax.Array) -> jax.Array:
    def step(state: object, batch: jax.Array) -> tuple[object, jax.Array]:
        state = chain.step(state, batch)
        return state, chain.loss(state)

    return jax.lax.scan(step, chain.initial_state(), batches)[1]


def regression(n: int, d: int, learning_rate: float, seed: int = 0) -> LinearRegression:
    """Correlated inputs and labels, so that H is not isotropic and θ* is not near 0."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(n, d)) * np.linspace(1, 2, d) + 0.3
    labels = inputs @ np.linspace(-1, 2, d) + rng.normal(size=n)
    return LinearRegression.from_data(jnp.asarray(inputs), jnp.asarray(labels), learning_rate)


def direct_loss(chain: LinearRegression, theta: jax.Array, batch: jax.Array) -> jax.Array:
    return 0.5 * jnp.mean((chain.inputs[batch] @ theta - chain.labels[batch]) ** 2)


@pytest.mark.parametrize("d", [1, 4])
def test_the_loss_from_sufficient_statistics_is_the_loss_over_all_samples(d: int) -> None:
    chain = regression(70, d, 0.1)
    for scale in (0.0, 0.1, 1.0, 30.0):
        theta = chain.minimum + scale * jax.random.normal(KEY, (d,), jnp.float64)
        expected = float(direct_loss(chain, theta, jnp.arange(70)))
        assert float(chain.loss(theta)) == pytest.approx(expected, rel=1e-12)


def test_the_chain_starts_at_the_minimum_of_the_loss() -> None:
    chain = regression(70, 4, 0.1)
    theta, residue, _, _ = np.linalg.lstsq(chain.inputs, chain.labels)
    np.testing.assert_allclose(chain.initial_state(), theta, rtol=1e-11)
    assert float(chain.loss(chain.initial_state())) == pytest.approx(residue[0] / 140, rel=1e-12)
    hessian = jax.hessian(lambda p: direct_loss(chain, p, jnp.arange(70)))(chain.minimum)
    np.testing.assert_allclose(chain.hessian, hessian, rtol=1e-12)


@pytest.mark.parametrize("batch", [[3], [5, 5], [0, 9, 4, 4, 68]], ids=str)
def test_a_regression_step_is_minus_eta_times_the_gradient_of_the_batch_loss(
    batch: list[int],
) -> None:
    chain = regression(70, 4, 0.17)
    theta = jax.random.normal(KEY, (4,), jnp.float64)
    indices = jnp.asarray(batch)
    gradient = jax.grad(lambda p: direct_loss(chain, p, indices))(theta)
    np.testing.assert_allclose(chain.step(theta, indices) - theta, -0.17 * gradient, rtol=1e-12)


def exact_covariances(chain: LinearRegression, batch_size: int, steps: int) -> list[np.ndarray]:
    """E φφᵀ of φ = θ - θ* after each step from θ*, for batches drawn with replacement.

    φ' = (I - ηM) φ + ηg with M the batch mean of xxᵀ and g that of -x(x·θ* - y); E g = 0 and
    batches are independent of φ, so S' = E[(I - ηM) S (I - ηM)] + η² E ggᵀ, and the covariance
    of a batch mean is that of one sample over B.
    """
    x, y = np.asarray(chain.inputs), np.asarray(chain.labels)
    eta, minimum = float(chain.learning_rate), np.asarray(chain.minimum)
    hessian, identity = x.T @ x / len(x), np.eye(x.shape[1])
    kicks = x * (x @ minimum - y)[:, None]
    drift = identity - eta * hessian
    covariances, current = [], 0 * identity
    for _ in range(steps):
        spread = np.einsum("mi,m,mj->ij", x, np.einsum("mi,ij,mj->m", x, current, x), x) / len(x)
        current = (
            drift @ current @ drift
            + eta**2 / batch_size * (spread - hessian @ current @ hessian)
            + eta**2 / batch_size * kicks.T @ kicks / len(x)
        )
        covariances.append(current)
    return covariances


@pytest.mark.parametrize(
    ("d", "learning_rate", "batch_size"), [(1, 0.1, 1), (1, 0.3, 4), (3, 0.05, 2)]
)
def test_the_noise_of_regression_has_the_exact_strength_at_every_step(
    d: int, learning_rate: float, batch_size: int
) -> None:
    """The strength of the noise enters the exponent: no √2 may be lost."""
    chain = regression(200, d, learning_rate)
    walkers, steps = 20000, 100
    draw = WithReplacement(200, batch_size, steps).draw
    batches = jax.vmap(draw, (None, 0))(KEY, jnp.arange(walkers))

    def step(state: jax.Array, batch: jax.Array) -> tuple[jax.Array, jax.Array]:
        state = jax.vmap(chain.step)(state, batch)
        return state, state

    start = jnp.tile(chain.initial_state()[None], (walkers, 1))
    _, theta = jax.jit(lambda b: jax.lax.scan(step, start, b))(jnp.swapaxes(batches, 0, 1))
    covariances = exact_covariances(chain, batch_size, steps)
    for k in (1, 2, 10, steps):
        shift = np.asarray(theta[k - 1] - chain.minimum[None])
        products = shift[:, :, None] * shift[:, None, :]
        error = products.std(0) / np.sqrt(walkers)
        assert np.all(abs(products.mean(0) - covariances[k - 1]) < 4 * error)
        assert np.all(abs(shift.mean(0)) < 4 * shift.std(0) / np.sqrt(walkers))
        assert np.all(error.diagonal() < 0.05 * covariances[k - 1].diagonal())


@pytest.mark.parametrize(("learning_rate", "batch_size"), [(0.1, 1), (0.3, 2), (1.0, 10)])
def test_the_stationary_variance_of_gaussian_regression_is_that_of_fresh_data(
    learning_rate: float, batch_size: int
) -> None:
    """E θ² = (η/B)/(2 - η(1 + 2/B)) at d = 1, by the recursion that simulation was held against."""
    chain = gaussian_regression(KEY, 100_000, 1, learning_rate)
    stationary = exact_covariances(chain, batch_size, 200)[-1][0, 0]
    expected = learning_rate / batch_size / (2 - learning_rate * (1 + 2 / batch_size))
    # Of the moments of 1e5 samples x⁴ errs most: √96/3/√1e5 = 1 % for one standard error. It
    # enters the denominator with a weight below one half.
    assert stationary == pytest.approx(expected, rel=0.03)


def test_gaussian_regression_draws_independent_standard_normal_inputs_and_labels() -> None:
    chain = gaussian_regression(KEY, 5000, 3, 0.1)
    assert chain.inputs.dtype == chain.labels.dtype == jnp.float64
    values = np.column_stack([chain.inputs, chain.labels])
    assert values.shape == (5000, 4)
    assert np.all(abs(values.mean(0)) < 4 / np.sqrt(5000))
    # The standard error of a variance is √2 of that of a covariance.
    error = np.sqrt((1 + np.eye(4)) / 5000)
    assert np.all(abs(values.T @ values / 5000 - np.eye(4)) < 4 * error)


def test_fresh_examples_make_the_step_of_regression_on_these_examples() -> None:
    d, batch_size = 3, 4
    drawn = GaussianIncrements(batch_size * (d + 1)).draw(jax.random.key(0), 0)[0]
    examples = drawn.reshape(batch_size, d + 1)
    fixed = LinearRegression.from_data(examples[:, :d], examples[:, d], 0.3)
    theta = jnp.array([0.5, -1.0, 2.0])
    np.testing.assert_allclose(
        FreshRegression.of_dimension(d, 0.3).step(theta, drawn),
        fixed.step(theta, jnp.arange(batch_size)),
        rtol=1e-13,
    )


def test_the_loss_of_fresh_examples_is_that_of_infinitely_many() -> None:
    fresh = FreshRegression.of_dimension(2, 0.1)
    many = gaussian_regression(jax.random.key(0), 10**6, 2, 0.1)
    assert fresh.loss(fresh.initial_state()) == 0.5
    theta = jnp.array([1.0, -2.0])
    # The loss of N examples errs by 3·√(2/N), the spread of (θ·x - y)²/2.
    assert float(many.loss(theta)) == pytest.approx(float(fresh.loss(theta)), abs=4 * 3 * 1.5e-3)


def test_rotating_the_inputs_changes_no_loss() -> None:
    chain = regression(70, 4, 0.02)
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))
    rotated = LinearRegression.from_data(chain.inputs @ rotation, chain.labels, 0.02)
    batches = batches_of_many_steps(70, 2, 1000)
    # Rounding of one step is forgotten within 1/(ηh) steps, so it does not build up.
    np.testing.assert_allclose(
        losses_along(chain, batches), losses_along(rotated, batches), rtol=1e-11
    )


def test_doubling_the_labels_multiplies_every_loss_by_four() -> None:
    chain = regression(70, 3, 0.02)
    doubled = LinearRegression.from_data(chain.inputs, 2 * chain.labels, 0.02)
    batches = batches_of_many_steps(70, 2, 500)
    # Powers of two scale without rounding.
    assert np.array_equal(4 * losses_along(chain, batches), losses_along(doubled, batches))


def test_halving_the_learning_rate_of_scaled_inputs_changes_no_loss() -> None:
    """x → 2x with η → η/4 is a change of the units of θ."""
    chain = regression(70, 3, 0.02)
    scaled = LinearRegression.from_data(2 * chain.inputs, chain.labels, 0.02 / 4)
    batches = batches_of_many_steps(70, 2, 500)
    np.testing.assert_allclose(
        losses_along(chain, batches), losses_along(scaled, batches), rtol=1e-11
    )


Data = tuple[Network, jax.Array, jax.Array]


def network_and_data(dtype: type) -> Data:
    """A 20-10-1 network with biases that are not zero, and 400 examples labelled ±1."""
    network = init_network(jax.random.key(0), [20, 10, 1])
    network = jax.tree.map(lambda a: jnp.asarray(a + 0.1 * (a.ndim == 1), dtype), network)
    rng = np.random.default_rng(0)
    inputs = rng.uniform(size=(400, 20))
    labels = np.where(np.sin(3 * inputs.sum(1)) > 0, 1.0, -1.0)
    return network, jnp.asarray(inputs, dtype), jnp.asarray(labels, dtype)


def in_function_space(data: Data, learning_rate: float) -> FunctionSpaceNetwork:
    return FunctionSpaceNetwork.from_network(*data, learning_rate)


def generic(data: Data, learning_rate: float) -> GenericNetwork:
    network, inputs, labels = data
    rate = jnp.asarray(learning_rate, inputs.dtype)
    return GenericNetwork(inputs, labels[:, None], network, rate)


@pytest.mark.parametrize(
    ("dtype", "steps", "tolerance"),
    # Rounding of 6e-8 and 1e-16 a step, which SGD on a landscape this smooth does not amplify.
    [(np.float32, 1000, 1e-4), (np.float64, 200, 1e-12)],
    ids=["float32", "float64"],
)
@pytest.mark.parametrize("batch_size", [1, 10])
def test_sgd_in_function_space_is_sgd(
    dtype: type, steps: int, tolerance: float, batch_size: int
) -> None:
    data = network_and_data(dtype)
    batches = batches_of_many_steps(400, batch_size, steps)
    expected = losses_along(generic(data, 0.02), batches)
    losses = losses_along(in_function_space(data, 0.02), batches)
    assert losses.dtype == dtype
    assert expected.min() < 0.9 * expected[0]
    np.testing.assert_allclose(losses, expected, rtol=tolerance)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    # Rounding of 6e-8 and 1e-16 a step, summed over the steps.
    [(np.float32, 1e-5), (np.float64, 1e-13)],
    ids=["float32", "float64"],
)
@pytest.mark.parametrize("batch_size", [1, 10])
def test_tracked_weights_are_those_of_sgd_and_have_the_loss_of_function_space(
    dtype: type, tolerance: float, batch_size: int
) -> None:
    network, inputs, labels = data = network_and_data(dtype)
    batches = batches_of_many_steps(400, batch_size, 200)
    tracked = TrackedNetwork.from_network(network, inputs, labels, 0.02)
    found = last_state(tracked, batches)
    expected = last_state(generic(data, 0.02), batches)
    for ours, theirs in zip(jax.tree.leaves(found.network), jax.tree.leaves(expected), strict=True):
        assert ours.dtype == dtype
        np.testing.assert_allclose(ours, theirs, atol=tolerance)
    moved = np.abs(np.asarray(found.network[0].weight - network[0].weight)).max()
    assert moved > 1000 * tolerance
    loss = float(full_loss(found.network, inputs, labels[:, None]))
    assert float(tracked.loss(found)) == pytest.approx(loss, rel=10 * tolerance)


@jax.jit
def last_state(chain: Chain, batches: jax.Array) -> object:
    start = chain.initial_state()
    return jax.lax.scan(lambda state, b: (chain.step(state, b), None), start, batches)[0]


@pytest.mark.parametrize("make", [in_function_space, generic])
def test_a_network_chain_starts_at_the_loss_of_its_network(
    make: Callable[[Data, float], Chain],
) -> None:
    network, inputs, labels = data = network_and_data(np.float64)
    hidden, output = jax.tree.map(np.asarray, network)
    outputs = (
        np.maximum(np.asarray(inputs) @ hidden.weight + hidden.bias, 0) @ output.weight
        + output.bias
    )
    chain = make(data, 0.02)
    loss = float(chain.loss(chain.initial_state()))
    assert loss == pytest.approx(np.mean((outputs[:, 0] - np.asarray(labels)) ** 2) / 2, rel=1e-12)


@pytest.mark.parametrize("make", [in_function_space, generic])
def test_permuting_hidden_units_changes_no_loss(make: Callable[[Data, float], Chain]) -> None:
    network, inputs, labels = network_and_data(np.float64)
    hidden, output = network
    order = np.random.default_rng(2).permutation(10)
    permuted = (
        hidden._replace(weight=hidden.weight[:, order], bias=hidden.bias[order]),
        output._replace(weight=output.weight[order]),
    )
    batches = batches_of_many_steps(400, 5, 100)
    one, other = (make((n, inputs, labels), 0.02) for n in (network, permuted))
    # Sums over hidden units in another order.
    np.testing.assert_allclose(losses_along(one, batches), losses_along(other, batches), rtol=1e-12)


def test_a_deep_network_as_a_chain_is_what_training_does() -> None:
    _, inputs, labels = network_and_data(np.float32)
    start = init_network(jax.random.key(3), [20, 6, 5, 1])
    epoch = Epoch(400, 10)
    trained = train(start, inputs, labels[:, None], epoch, KEY, learning_rate=0.02, steps=40)
    chain = generic((start, inputs, labels), 0.02)
    losses = losses_along(chain, epoch.draw(KEY, jnp.asarray(0)))
    assert float(losses[-1]) == pytest.approx(float(trained.training_loss[0]), rel=1e-5)
