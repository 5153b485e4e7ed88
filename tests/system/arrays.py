"""What two runs of the study have to agree on: arrays, attributes, verdicts, named outcomes."""

import hashlib
from pathlib import Path

from sgd_escape import storage


def digests(folder: Path) -> dict[str, str]:
    """The digest of each file's content below `folder`/results: NetCDF, tables and decisions.

    Shards are left out: how runs are divided is not a result. Raises SgdEscapeError when a file is
    damaged.
    """
    results = folder / "results"
    # A fit may hold any variables, hence reading as such checks no more than that a file is whole.
    found = {
        str(path.relative_to(results)): storage.content_digest(storage.read(path, "fit"))
        for path in sorted(results.rglob("*.nc"))
        if path.parent.name != "shards"
    }
    for path in [*results.glob("*.csv"), *results.glob("*/**/*.json")]:
        found[str(path.relative_to(results))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def differences(folder: Path, reference: Path) -> list[str]:
    """The files that are missing from `folder`, too many there, or other than in `reference`."""
    ours, theirs = digests(folder), digests(reference)
    return sorted(
        name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)
    )
