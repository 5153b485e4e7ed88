"""The two kinds of network of section 5.2, with their data, and the losses they are trained on."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from sgd_escape import storage
from sgd_escape.datasets import channel_inputs, flat_inputs, one_hot_subset
from sgd_escape.losses import cross_entropy_loss, mean_square_loss
from sgd_escape.networks import Network, init_convolutional_network, init_network

LOSSES = {"mean_square": mean_square_loss, "cross_entropy": cross_entropy_loss}


class Architecture(NamedTuple):
    """How one of the two kinds of network of section 5.2 reads its data and begins."""

    read: Callable[[str, int], tuple[np.ndarray, np.ndarray]]
    init: Callable[[Any, tuple[int, ...], int, dict[str, Any]], Network]
    # As many as keep the arrays of a chunk in the processor's cache.
    examples_at_once: int


def _read_fashion_mnist(path: str, n_samples: int) -> tuple[np.ndarray, np.ndarray]:
    dataset = storage.read(path, "dataset")
    images, labels = one_hot_subset(dataset["image"].values, dataset["label"].values, n_samples)
    return flat_inputs(images), labels


def _read_cifar10(path: str, n_samples: int) -> tuple[np.ndarray, np.ndarray]:
    dataset = storage.read(path, "color_dataset")
    images, labels = one_hot_subset(dataset["image"].values, dataset["label"].values, n_samples)
    return channel_inputs(images), labels


def _init_fc(key: Any, shape: tuple[int, ...], outputs: int, study: dict[str, Any]) -> Network:
    return init_network(key, (shape[1], *study["hidden_units"], outputs))


def _init_cnn(key: Any, shape: tuple[int, ...], outputs: int, study: dict[str, Any]) -> Network:
    _, side, _, channels = shape
    return init_convolutional_network(
        key, side, channels, study["filters"], outputs, layers_per_stack=study["layers_per_stack"]
    )


ARCHITECTURES = {
    "fc": Architecture(_read_fashion_mnist, _init_fc, 100),
    "cnn": Architecture(_read_cifar10, _init_cnn, 10),
}
