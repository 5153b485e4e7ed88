from prologue import begin

begin(snakemake)

import json
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import requires, version

from sgd_escape import storage
from sgd_escape.files import write_with_checksum


def git(*arguments):
    """What git prints about this repository, or None where there is no git or no repository."""
    command = ["git", "-C", snakemake.scriptdir, *arguments]
    try:
        finished = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return finished.stdout.strip()


needed = [line for line in requires("sgd-escape") if "extra ==" not in line]
packages = ["sgd-escape", *(re.match(r"[\w.-]+", line)[0] for line in needed)]
commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain")
provenance = {
    "time": datetime.now(UTC).isoformat(timespec="seconds"),
    "host": platform.node(),
    "platform": platform.platform(),
    "python": platform.python_version(),
    "git_commit": commit,
    "git_dirty": None if changes is None else bool(changes),
    "versions": {package: version(package) for package in packages},
    "config_sha256": storage.attributes(snakemake.params.config)["config_sha256"],
}
content = json.dumps(provenance, indent=2, ensure_ascii=False) + "\n"
write_with_checksum(snakemake.output[0], content.encode())
