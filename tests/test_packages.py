import gzip
import io
import shutil
import tarfile
import tempfile

import pytest

from sgd_escape import packages
from sgd_escape.packages import DAMAGED_ARCHIVE, Unavailable

CONTENTS = {"data/images": b"pixels " * 9, "data/labels": b"\0\1\2"}
LIMITS = dict.fromkeys(CONTENTS, 1000)
# What would be written outside the folder, were the archive extracted.
HOSTILE = {"../evil": b"evil", "../../evil": b"evil", "a/../../evil": b"evil"}

needs_dpkg_deb = pytest.mark.skipif(
    shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed"
)


def tar(members, kind=tarfile.REGTYPE):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.type = kind
            member.linkname = "../../evil"
            member.size = len(content) if kind == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def npm_package(members):
    return gzip.compress(tar(members), mtime=0)


def debian_package(members):
    """A .deb: an ar archive of the format's version, the control files and the data."""
    parts = {"debian-binary": b"2.0\n", "control.tar": tar({"./control": b"Package: small\n"})}
    parts["data.tar"] = tar(members)
    content = b"!<arch>\n"
    for name, part in parts.items():
        content += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(part):<10}`\n".encode() + part
        content += b"\n" * (len(part) % 2)
    return content


def read(content, limits=LIMITS):
    return packages.read_members(io.BytesIO(content), limits)


@pytest.fixture
def client(tmp_path, monkeypatch):
    """Puts on PATH a client that leaves `content` as a file `name`, or runs another command."""
    folder, temporary = tmp_path / "bin", tmp_path / "temporary" / "folder"
    folder.mkdir()
    temporary.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("PATH", str(folder))
    tools = {tool: shutil.which(tool, path="/bin:/usr/bin") for tool in ["cp", "sleep", "dpkg-deb"]}

    def install(program, content=b"", *, leaves="", command=""):
        (folder / "content").write_bytes(content)
        command = command.format(**tools, folder=folder)
        if leaves:
            command += f"\nexec {tools['cp']} {folder}/content {leaves}"
        (folder / program).write_text(f"#!/bin/sh\n{command}\n")
        (folder / program).chmod(0o755)
        if tools["dpkg-deb"]:
            (folder / "dpkg-deb").unlink(missing_ok=True)
            (folder / "dpkg-deb").symlink_to(tools["dpkg-deb"])

    return install


def test_the_named_members_are_read_in_whatever_order_they_stand():
    others = {"README": b"", **HOSTILE}
    for members in [others | CONTENTS, dict(reversed((CONTENTS | others).items()))]:
        assert read(tar(members)) == CONTENTS


def test_a_member_is_cut_at_its_limit():
    found = read(tar(CONTENTS), {"data/images": 7, "data/labels": 1000})
    assert found == CONTENTS | {"data/images": b"pixels "}


def test_a_compressed_member_is_decompressed_up_to_its_limit():
    member = {"data/images.gz": gzip.compress(b"\0" * 10**6)}
    assert read(tar(member), {"data/images.gz": 5}) == {"data/images.gz": b"\0" * 5}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE])
def test_a_link_or_a_folder_in_place_of_a_member_is_refused(kind):
    with pytest.raises(tarfile.ReadError, match="data/images is no file"):
        read(tar(CONTENTS, kind))


def test_a_missing_member_is_named():
    with pytest.raises(tarfile.ReadError, match="data/labels is not in it"):
        read(tar({"data/images": b""} | HOSTILE))


@pytest.mark.parametrize("n_bytes", [0, 100, 512, 530, 1024, 1100])
def test_a_truncated_tar_is_refused(n_bytes):
    with pytest.raises(DAMAGED_ARCHIVE):
        read(tar(CONTENTS)[:n_bytes])


def test_a_truncated_compressed_member_is_refused():
    with pytest.raises(EOFError):
        read(tar({"data/images.gz": gzip.compress(b"pixels")[:-9]}), {"data/images.gz": 1000})


def test_an_npm_package_is_read_without_writing_what_its_archive_names(tmp_path, client):
    outside = {str(tmp_path / "evil"): b"evil"}
    client("npm", npm_package(HOSTILE | outside | CONTENTS), leaves="small-1.0.0.tgz")
    assert packages.npm_members("small@1.0.0", LIMITS) == CONTENTS
    assert not list(tmp_path.rglob("evil"))


@needs_dpkg_deb
def test_a_debian_package_is_read_without_writing_what_its_archive_names(tmp_path, client):
    outside = {str(tmp_path / "evil"): b"evil"}
    client("apt-get", debian_package(HOSTILE | outside | CONTENTS), leaves="small_1.0_all.deb")
    assert packages.debian_members("small", LIMITS) == CONTENTS
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize(
    "content",
    [b"", b"no archive", npm_package(CONTENTS)[:100], npm_package(CONTENTS)[:40], npm_package({})],
)
def test_a_damaged_npm_package_is_refused(content, client):
    client("npm", content, leaves="small-1.0.0.tgz")
    with pytest.raises(Unavailable, match=r"the npm package small@1.0.0 cannot be used: ."):
        packages.npm_members("small@1.0.0", LIMITS)


@needs_dpkg_deb
@pytest.mark.parametrize(
    "content",
    [b"", b"no archive", debian_package(CONTENTS)[:-9000], debian_package(CONTENTS)[:90]],
)
def test_a_damaged_debian_package_is_refused(content, client):
    client("apt-get", content, leaves="small_1.0_all.deb")
    with pytest.raises(Unavailable, match=r"dpkg-deb --fsys-tarfile .* failed: dpkg-deb.*: "):
        packages.debian_members("small", LIMITS)


@needs_dpkg_deb
def test_a_debian_package_without_the_members_is_refused(client):
    client("apt-get", debian_package(HOSTILE), leaves="small_1.0_all.deb")
    with pytest.raises(Unavailable, match=r"the Debian package small cannot be used: data/images"):
        packages.debian_members("small", LIMITS)


def test_a_client_that_leaves_no_package_is_reported(client):
    client("npm", command="exit 0")
    with pytest.raises(Unavailable, match=r"cannot be used: its client left 0 files \*\.tgz"):
        packages.npm_members("small@1.0.0", LIMITS)


def test_a_client_that_hangs_is_stopped(client, monkeypatch):
    monkeypatch.setattr(packages, "_TIMEOUT", 0.2)
    client("npm", command="exec {sleep} 60")
    with pytest.raises(Unavailable, match=r"npm pack took longer than 0\.2 s"):
        packages.npm_members("small@1.0.0", LIMITS)


@pytest.mark.parametrize(
    ("get", "program"), [(packages.npm_members, "npm"), (packages.debian_members, "apt-get")]
)
def test_a_client_that_is_not_installed_is_named(get, program, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match=rf"^{program} is not installed$"):
        get("small", LIMITS)


@needs_dpkg_deb
def test_apt_without_package_lists_fetches_lists_of_its_own_first(client):
    command = 'case "$*" in *update*) : > new_lists; exit;; esac\n'
    command += 'if [ ! -e new_lists ]; then echo "E: Unable to locate package" >&2; exit 100; fi'
    client("apt-get", debian_package(CONTENTS), leaves="small_1.0_all.deb", command=command)
    assert packages.debian_members("small", LIMITS) == CONTENTS


def test_apt_that_cannot_reach_anything_tells_its_first_reason(client):
    command = (
        'case "$*" in *option*) echo "E: second" >&2;; *) echo "E: first" >&2;; esac\nexit 100'
    )
    client("apt-get", command=command)
    with pytest.raises(Unavailable, match=r"^apt-get download small failed: E: first$"):
        packages.debian_members("small", LIMITS)
