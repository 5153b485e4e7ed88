"""Files that are written whole or not at all, and the folders that they stand in."""

import contextlib
import errno
import fcntl
import hashlib
import itertools
import os
import re
import secrets
import shutil
import time
from pathlib import Path

from sgd_escape.errors import SgdEscapeError

RUN_AGAIN = "Delete it and run the same command again"
_UNFINISHED = re.compile(r"\..*\.[0-9a-f]{8}\.tmp")
_LEAST_FREE_BYTES = 10 * 2**20


def write_bytes_atomically(path: str | Path, data: bytes) -> None:
    """Write a file whole or not at all: temporary name in the same folder, flush, rename.

    Raises SgdEscapeError when it cannot be written; what stood at `path` is then untouched.
    """
    path = Path(path)
    # Unique, as a job that outlived a killed run may still be writing the same file.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise SgdEscapeError(
            f"{path} was not written: {error.strerror}. {_remedy(error, path.parent)}, "
            "then run the same command again"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    _flush_folder(path.parent)


def write_with_checksum(path: str | Path, data: bytes) -> None:
    """Write a file, and beside it `path`.sha256 in the form that `sha256sum -c` reads.

    Raises SgdEscapeError when they cannot be written.
    """
    write_bytes_atomically(path, data)
    write_bytes_atomically(_checksum_path(path), _checksum_line(path, data))


def read_with_checksum(path: str | Path) -> bytes:
    """What `write_with_checksum` wrote.

    Raises SgdEscapeError when one of the two files is missing, damaged or edited.
    """
    try:
        data, checksum = Path(path).read_bytes(), _checksum_path(path).read_bytes()
    except OSError as error:
        advice = (
            f"Delete {path} and run the same command again"
            if os.path.exists(path)
            else "Run the command that makes it first"
        )
        raise SgdEscapeError(
            f"{error.filename} cannot be read: {error.strerror}. {advice}"
        ) from error
    if checksum != _checksum_line(path, data):
        raise SgdEscapeError(
            f"{path} was damaged or edited: its checksum differs from the one in "
            f"{_checksum_path(path).name}. {RUN_AGAIN}"
        )
    return data


def check_folder(folder: str | Path) -> None:
    """Raises SgdEscapeError when a folder may not be written to or has hardly any space left."""
    if not os.access(folder, os.W_OK):
        raise SgdEscapeError(
            f"{Path(folder).absolute()} may not be written to, but a run writes there. Make it "
            "writable, or choose another folder, then run the same command again"
        )
    free = shutil.disk_usage(folder).free
    if free < _LEAST_FREE_BYTES:
        raise SgdEscapeError(
            f"{Path(folder).absolute()} is on a disk that has {free / 2**20:.1f} MB left, needed "
            f"are at least {_LEAST_FREE_BYTES >> 20}. Free some space there, then run the same "
            "command again"
        )


def hold_lock(path: str | Path) -> None:
    """Hold the lock of a folder for as long as this process lives.

    Raises SgdEscapeError when another process holds it, or the file system has no locks.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            message = "another run is at work in this folder; wait for it or stop it first"
        else:
            message = (
                f"{path} cannot be locked ({error.strerror}), so that nothing would keep two runs "
                "in this folder apart. Have its file system mounted with locks (Lustre: -o flock), "
                "or choose another folder by --directory"
            )
        raise SgdEscapeError(message) from error


def tidy(*folders: str | Path) -> None:
    """Remove what killed jobs left half-written, and date files of the future now, in their order.

    Files have a date of the future when the clock was set back; made from them, a new file would
    seem older than what it was made from. For the one who holds the lock of the folders: what a job
    of a dead run is still writing is removed too.
    """
    now = time.time()
    future: dict[Path, float] = {}
    for path in itertools.chain.from_iterable(Path(folder).rglob("*") for folder in folders):
        with contextlib.suppress(OSError):
            if _UNFINISHED.fullmatch(path.name):
                path.unlink()
            elif (date := path.stat().st_mtime) > now:
                future[path] = date
    latest_first = sorted(set(future.values()), reverse=True)
    dates = {date: now - rank / 1000 for rank, date in enumerate(latest_first)}
    for path, date in future.items():
        with contextlib.suppress(OSError):
            os.utime(path, (dates[date], dates[date]))


def _flush_folder(folder: Path) -> None:
    # The file is whole by now, and some network file systems refuse to flush a folder.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remedy(error: OSError, folder: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"Free some space for {folder}"
    return f"Check that {folder} is a folder that you may write to"


def _checksum_path(path: str | Path) -> Path:
    return Path(f"{path}.sha256")


def _checksum_line(path: str | Path, data: bytes) -> bytes:
    return f"{hashlib.sha256(data).hexdigest()}  {Path(path).name}\n".encode()
