"""Damaged, foreign and hostile files: only the errors that callers know come out of a reader."""

import functools
import gzip
import io
import os
import struct
import tarfile
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from test_storage import CLOSED, example_fit
from test_storage import example as of_kind

from sgd_escape import SgdEscapeError, packages, storage
from sgd_escape.checkpoints import Checkpoint
from sgd_escape.claims import Claim, from_csv, load_claims, to_csv
from sgd_escape.datasets import decode_cifar10, decode_idx
from sgd_escape.packages import DAMAGED_ARCHIVE, read_members

KINDS = sorted(storage.KINDS)
# Positions as fractions, so that they fall anywhere in files of all sizes.
FRACTIONS = st.floats(0, 1, exclude_max=True)


def valid(kind):
    if storage.KINDS[kind].variables is None:
        return example_fit().assign_attrs(layers="dense")
    return of_kind(kind)


@pytest.fixture(scope="session")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("kinds") / "file.nc"


@functools.cache
def content_of(kind):
    """The bytes of a valid file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.nc"
        storage.write(valid(kind), path, kind)
        return path.read_bytes()


def cut(content, at, _):
    return content[:at]


def flipped(content, at, pattern):
    return content[:at] + bytes([content[at] ^ (pattern[0] or 1)]) + content[at + 1 :]


def inserted(content, at, pattern):
    return content[:at] + pattern + content[at:]


def overwritten(content, at, pattern):
    return content[:at] + pattern + content[at + len(pattern) :]


def swapped(content, at, _):
    half = min(at, len(content) - at)
    return content[half : 2 * half] + content[:half] + content[2 * half :]


def removed(content, at, pattern):
    return content[:at] + content[at + len(pattern) :]


DAMAGES = st.sampled_from([cut, flipped, inserted, overwritten, swapped, removed])
PATTERNS = st.binary(min_size=1, max_size=600)


@given(st.sampled_from(KINDS), DAMAGES, FRACTIONS, PATTERNS)
def test_a_damaged_file_of_any_kind_is_refused(path, kind, damage, where, pattern):
    content = content_of(kind)
    damaged = damage(content, int(where * len(content)), pattern)
    assume(damaged != content)
    path.write_bytes(damaged)
    with pytest.raises(SgdEscapeError, match=r"file\.nc .* Delete it and run the same command"):
        storage.read(path, kind)


def without_a_variable(dataset, name):
    return dataset.drop_vars(name)


def with_another_variable(dataset, name):
    return dataset.assign({f"{name}_": 1.0})


def with_another_dtype(dataset, name):
    other = np.float64 if dataset.variables[name].dtype == np.float32 else np.float32
    return dataset.assign({name: dataset.variables[name].astype(other)})


def with_another_dim(dataset, name):
    return dataset.assign({name: dataset.variables[name].expand_dims("other")})


@given(
    st.sampled_from(CLOSED),
    st.sampled_from(
        [without_a_variable, with_another_variable, with_another_dtype, with_another_dim]
    ),
    st.integers(0, 100),
)
def test_a_sealed_file_whose_content_is_not_of_its_kind_is_refused(path, kind, change, which):
    dataset = valid(kind)
    numeric = [name for name, var in dataset.variables.items() if var.dtype.kind != "U"]
    numeric = [name for name in numeric if name not in dataset.dims] or numeric
    name = numeric[which % len(numeric)]
    write_as_it_is(change(dataset, name), path)
    with pytest.raises(SgdEscapeError, match=f"is not a {kind} file: .*Delete it and run"):
        storage.read(path, kind)


def write_as_it_is(dataset, path):
    """With a valid digest and a valid seal, whatever it holds."""
    digest = storage.content_digest(dataset)
    content = storage._encoded(dataset.assign_attrs({storage._DIGEST: digest}))
    path.write_bytes(content + storage._seal(content))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (kind, name)
        for kind, layout in storage.KINDS.items()
        for name, variable in (layout.variables or {}).items()
        if variable.startswith("float") and name not in layout.may_be_non_finite
    ],
)
def test_numbers_that_are_not_finite_are_refused_where_they_must_be(kind, name, path):
    dataset = valid(kind)
    dataset = dataset.assign({name: dataset.variables[name] * np.float32(np.nan)})
    write_as_it_is(dataset, path)
    with pytest.raises(SgdEscapeError, match=f"{name} holds .* not finite"):
        storage.read(path, kind)


def fifo(path):
    os.mkfifo(path)


def endless(path):
    path.symlink_to("/dev/zero")


def loop(path):
    path.symlink_to(path)


def netcdf3(path):
    of_kind("first_passage").to_netcdf(path, engine="scipy", format="NETCDF3_64BIT")


def netcdf4(path):
    of_kind("first_passage").to_netcdf(path, engine="netcdf4")


def text(path):
    path.write_text("run,threshold\n1,2\n" * 50)


def locked(path):
    netcdf4(path)
    path.chmod(0)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (fifo, "is no plain file"),
        (endless, "is no plain file"),
        (loop, "cannot be read: Too many levels"),
        (Path.mkdir, "cannot be read: Is a directory"),
        (netcdf3, "does not end with its checksum"),
        (netcdf4, "does not end with its checksum"),
        (text, "does not end with its checksum"),
        (Path.touch, "does not end with its checksum"),
        pytest.param(
            locked,
            "cannot be read: Permission denied",
            marks=pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything"),
        ),
    ],
)
def test_a_foreign_file_is_refused(make, says, tmp_path):
    path = tmp_path / "file.nc"
    make(path)
    with pytest.raises(SgdEscapeError, match=says):
        storage.read(path, "first_passage")


def idx(shape, content=b""):
    return b"\0\0\x08" + bytes([len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + content


@given(st.binary(max_size=40) | st.binary(max_size=40).map(lambda rest: b"\0\0\x08" + rest))
@example(idx((1,) * 255, b"x"))
@example(idx((0, 2**32 - 1, 2**32 - 1, 2**32 - 1)))
@example(idx((0, 2**32 - 1, 2**32 - 1)))
@example(idx(()) + b"x")
@example(idx((2**32 - 1,) * 3))
def test_a_strange_idx_file_is_decoded_or_refused(content):
    try:
        decoded = decode_idx(content, "images")
    except SgdEscapeError:
        return
    assert decoded.dtype == np.uint8


def test_an_idx_file_of_more_dims_than_images_have_is_refused():
    with pytest.raises(SgdEscapeError, match=r"images announces dims that no array has: .* 255"):
        decode_idx(idx((1,) * 255, b"x"), "images")


@given(st.binary(max_size=40).map(lambda part: (part * 3073)[: 3073 * 2]) | st.binary())
def test_a_strange_file_of_cifar10_is_decoded_or_refused(content):
    try:
        images, labels = decode_cifar10(content, "data_batch_1.bin")
    except SgdEscapeError:
        return
    assert images.shape == (*labels.shape, 32, 32, 3)


CLAIM = Claim("a", "Eq. (15)", "It is.", 1.0, 1.0, 0.9, 1.1, "reproduced", "exact")


@given(DAMAGES, FRACTIONS, st.text(max_size=30).map(lambda text: text.encode("utf-8", "replace")))
@example(inserted, 0.9, b"\0")
@example(inserted, 0.9, b'"' + b"x" * 200_000)
@example(inserted, 0.9, b"\r\r")
def test_a_damaged_table_of_claims_is_read_or_refused(damage, where, pattern):
    content = to_csv([CLAIM, CLAIM]).encode()
    damaged = damage(content, int(where * len(content)), pattern or b"x")
    try:
        from_csv(damaged.decode("utf-8", "replace"))
    except SgdEscapeError:
        return


@settings(max_examples=15)
@given(st.binary(max_size=50) | st.text("-[]{}:,&*!ab\n 2", max_size=50).map(str.encode))
@example(b"2001-02-30")
@example(b"[" * 2000)
@example(b"9" * 5000)
def test_a_strange_file_of_claims_is_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "claims.yaml"
    path.write_bytes(content)
    try:
        assert load_claims(path) == []
    except SgdEscapeError:
        return


@pytest.mark.parametrize(
    "stored",
    [
        {"leaf0": np.zeros(3)},
        {"done": 2},
        {"done": 2, "leaf0": np.zeros(4)},
        {"done": 2, "leaf0": np.zeros((3, 1))},
        {"done": np.zeros(2, int), "leaf0": np.zeros(3)},
    ],
    ids=["no count", "no state", "longer", "deeper", "two counts"],
)
def test_a_checkpoint_of_another_state_counts_as_none(stored, tmp_path):
    checkpoint = Checkpoint(tmp_path, {})
    variables = {
        name: ([f"{name}_dim{axis}" for axis in range(np.ndim(value))], value)
        for name, value in stored.items()
    }
    storage.write(xr.Dataset(variables), checkpoint.path, "checkpoint")
    done, state = checkpoint.load(np.ones(3))
    assert done == 0
    np.testing.assert_array_equal(state, np.ones(3))


def tar(*members):
    """Of (name, type, content, size that its header tells)."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, kind, content, size in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, "/etc/passwd", size
            archive.addfile(member)
            stream.write(content + bytes(-len(content) % 512))
            archive.offset = stream.tell()
    return stream.getvalue()


FILE = ("data", tarfile.REGTYPE, b"content", 7)


@given(DAMAGES, FRACTIONS, PATTERNS, st.booleans())
@example(overwritten, 0.0, b"\xff" * 512, False)
def test_a_damaged_archive_is_read_or_refused(damage, where, pattern, compressed):
    packed = ("data.gz", tarfile.REGTYPE, gzip.compress(b"content"), 27)
    content = tar(("../other", tarfile.REGTYPE, b"x", 1), packed if compressed else FILE)
    damaged = damage(content, int(where * len(content)), pattern)
    name = "data.gz" if compressed else "data"
    try:
        found = read_members(io.BytesIO(damaged), {name: 100})
    except DAMAGED_ARCHIVE:
        return
    assert len(found[name]) <= 100


@pytest.mark.parametrize(
    "kind",
    [
        *(tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE),
        *(tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE),
    ],
)
def test_only_a_plain_file_is_read_from_an_archive(kind):
    with pytest.raises(tarfile.ReadError, match="data is no file"):
        read_members(io.BytesIO(tar(("data", kind, b"", 0))), {"data": 100})


@pytest.mark.parametrize("name", ["/data", "../data", "./data", "x/../data", "DATA"])
def test_a_member_whose_name_only_resembles_is_not_taken(name):
    found = tar((name, tarfile.REGTYPE, b"evil", 4), FILE)
    assert read_members(io.BytesIO(found), {"data": 100}) == {"data": b"content"}


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.REGTYPE])
def test_a_bomb_takes_neither_memory_nor_time(kind, monkeypatch):
    monkeypatch.setattr(packages, "_MOST_BYTES", 10**6)
    size = 8 * 10**9
    head = tar(("bomb", kind, b"", size))[:512]

    class Endless(io.BufferedIOBase):
        def __init__(self):
            self.head, self.given = io.BytesIO(head), 0

        def read(self, count):
            self.given += count
            assert self.given < 10**8
            return self.head.read(count) or bytes(count)

    tracemalloc.start()
    with pytest.raises(tarfile.ReadError, match="holds more than 1000000 bytes"):
        read_members(Endless(), {"data": 100})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10**7


def test_a_size_that_no_stream_has_ends_where_the_stream_does():
    huge = tarfile.TarInfo("bomb")
    huge.size = 2**80
    content = huge.tobuf(tarfile.GNU_FORMAT) + tar(FILE)
    with pytest.raises(tarfile.ReadError, match="it ends too early"):
        read_members(io.BytesIO(content), {"data": 100})


def test_a_compressed_bomb_is_cut_at_its_limit():
    bomb = gzip.compress(bytes(10**7))
    content = tar(("data.gz", tarfile.REGTYPE, bomb, len(bomb)))
    tracemalloc.start()
    assert read_members(io.BytesIO(content), {"data.gz": 100}) == {"data.gz": bytes(100)}
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10**6
