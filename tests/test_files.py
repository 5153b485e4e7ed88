import errno
import fcntl
import os
import resource
import shutil
import subprocess
import sys
import time

import pytest

from sgd_escape import SgdEscapeError
from sgd_escape.files import (
    check_folder,
    hold_lock,
    read_with_checksum,
    tidy,
    write_bytes_atomically,
    write_with_checksum,
)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(function, tmp_path, monkeypatch):
    path = tmp_path / "claims.csv"
    path.write_bytes(b"old")

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(SgdEscapeError, match=r"was not written: No space left .* Free some space"):
        write_bytes_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["claims.csv"]


def test_a_write_cut_short_leaves_nothing_behind(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, limits[1]))
    try:
        with pytest.raises(SgdEscapeError, match="File too large"):
            write_bytes_atomically(tmp_path / "figure.pdf", bytes(2**20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names_in(tmp_path) == []


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(SgdEscapeError, match=r"No such file or directory. Check that .*absent is"):
        write_bytes_atomically(tmp_path / "absent" / "claims.csv", b"id")


def test_bytes_replace_what_stood_there_with_ordinary_permissions(tmp_path):
    path = tmp_path / "claims.csv"
    path.write_bytes(b"old")
    usual = path.stat().st_mode
    write_bytes_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode == usual
    assert names_in(tmp_path) == ["claims.csv"]


def test_a_checksum_is_one_that_other_programs_can_check(tmp_path):
    write_with_checksum(tmp_path / "claims.csv", b"id\n")
    assert read_with_checksum(tmp_path / "claims.csv") == b"id\n"
    command = ["sha256sum", "--check", "claims.csv.sha256"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)


@pytest.mark.parametrize("name", ["claims.csv", "claims.csv.sha256"])
def test_a_changed_bit_or_a_lost_byte_is_noticed(name, tmp_path):
    write_with_checksum(tmp_path / "claims.csv", b"id,verdict\n")
    content = (tmp_path / name).read_bytes()
    flipped = [
        content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        for place in range(len(content))
    ]
    cut = [content[:length] for length in range(len(content))]
    for damaged in [*flipped, *cut, content + b"\n"]:
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(SgdEscapeError, match=r"claims\.csv was damaged or edited.* Delete it"):
            read_with_checksum(tmp_path / "claims.csv")


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("claims.csv", "Run the command that makes it first"),
        ("claims.csv.sha256", r"Delete .*claims\.csv and run the same command again"),
    ],
)
def test_a_missing_file_or_checksum_is_named(name, advice, tmp_path):
    write_with_checksum(tmp_path / "claims.csv", b"id\n")
    (tmp_path / name).unlink()
    with pytest.raises(SgdEscapeError, match=f"{name} cannot be read: No such file.* {advice}"):
        read_with_checksum(tmp_path / "claims.csv")


def test_a_folder_with_room_is_accepted(tmp_path):
    check_folder(tmp_path)
    assert names_in(tmp_path) == []


def test_a_folder_that_may_not_be_written_to_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(SgdEscapeError, match=r"may not be written to.* Make it writable, or"):
        check_folder(tmp_path)


def test_a_folder_on_a_full_disk_is_refused(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=3 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(SgdEscapeError, match=r"has 3\.0 MB left, needed are at least 10.* Free"):
        check_folder(tmp_path)


def test_a_lock_is_held_until_its_process_ends(tmp_path):
    lock = f"from sgd_escape.files import hold_lock; hold_lock({str(tmp_path / 'lock')!r})"
    subprocess.run([sys.executable, "-c", lock], check=True)
    hold_lock(tmp_path / "lock")
    second = subprocess.run([sys.executable, "-c", lock], capture_output=True, text=True)
    assert "another run is at work in this folder; wait for it" in second.stderr


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(SgdEscapeError, match=r"cannot be locked \(Function not .* by --directory"):
        hold_lock(tmp_path / "lock")


def test_what_killed_jobs_left_is_removed_and_nothing_else(tmp_path):
    kept = [".hidden", ".a.nc.tmp", "a.nc.0123abcd.tmp", "a.nc", ".a.nc.0123abcd.tmp.nc"]
    (tmp_path / "noise").mkdir()
    for name in [*kept, ".a.nc.0123abcd.tmp", "noise/.fc.nc.ffffffff.tmp"]:
        (tmp_path / name).write_text("")
    tidy(tmp_path)
    assert names_in(tmp_path) == sorted([*kept, "noise"])
    assert names_in(tmp_path / "noise") == []


def test_a_write_that_was_killed_leaves_a_name_that_is_tidied(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    monkeypatch.setattr(os, "replace", die)
    monkeypatch.setattr("pathlib.Path.unlink", lambda *_, **__: None)
    with pytest.raises(Killed):
        write_bytes_atomically(tmp_path / "a.nc", b"")
    monkeypatch.undo()
    assert len(names_in(tmp_path)) == 1
    tidy(tmp_path)
    assert names_in(tmp_path) == []


def test_only_files_of_the_future_get_another_date_and_keep_their_order(tmp_path):
    now = time.time()
    shifts = {"past": -1000, "script": 1000, "log": 1000, "output": 2000, "report": 2000.5}
    for name, shift in shifts.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("")
        os.utime(tmp_path / name / "file", (now + shift, now + shift))
    tidy(*(tmp_path / name for name in shifts))
    past, script, log, output, report = (
        (tmp_path / name / "file").stat().st_mtime for name in shifts
    )
    assert past == pytest.approx(now - 1000)
    assert now - 1 < script == log < output < report <= time.time()


def test_a_folder_that_is_not_there_is_tidy(tmp_path):
    tidy(tmp_path / "absent")
