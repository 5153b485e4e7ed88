"""Known vulnerabilities of the locked packages, by pip-audit; nothing is installed.

    .venv/bin/python tests/system/audit.py

Exit status 1 if one is found, or if the lock file cannot be audited. Where no database answers,
one line says so and the status is 0.
"""

import json
import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).parents[2] / "requirements.lock"
# An answer takes as long as a question for each package; a server that is not there, 5 seconds.
SECONDS = 120
# How the last line of pip-audit's complaint tells that it got no answer.
SILENCES = ["ConnectionError", "Timeout", "ServiceError", "Could not connect"]


def audited(service: str) -> list[dict]:
    """The packages that a database knows, each with its vulnerabilities; none if it is silent.

    Exits where pip-audit fails for any other reason.
    """
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(LOCK), "--require-hashes"]
    command += ["--disable-pip", "--format=json", "--progress-spinner=off", "--timeout=5"]
    try:
        run = subprocess.run(
            [*command, f"--vulnerability-service={service}"],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return []
    try:
        found = json.loads(run.stdout)["dependencies"]
    except ValueError:
        last = run.stderr.strip().rpartition("\n")[2]
        if any(silence in last for silence in SILENCES):
            return []
        sys.exit(f"error: pip-audit could not audit {LOCK.name}: {last}")
    return [package for package in found if "skip_reason" not in package]


def main() -> int:
    packages = next(filter(None, map(audited, ["pypi", "osv"])), [])
    if not packages:
        print("requirements.lock was not audited: no database of vulnerabilities answers here")
        return 0
    vulnerable = [package for package in packages if package["vulns"]]
    for package in vulnerable:
        names = ", ".join(vulnerability["id"] for vulnerability in package["vulns"])
        print(f"error: {package['name']} {package['version']}: {names}", file=sys.stderr)
    print(f"requirements.lock: {len(vulnerable)} of {len(packages)} packages are vulnerable")
    return bool(vulnerable)


if __name__ == "__main__":
    sys.exit(main())
