"""What the pipeline does with what it has no reason to trust. See docs/security.md."""

import ast
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from sgd_escape import SgdEscapeError, storage

ROOT = Path(__file__).parents[1]
PYTHON = sorted(
    path
    for folder in ["src", "workflow", "benchmarks", "tests"]
    for path in ROOT.glob(f"{folder}/**/*.py")
)
RULES = [ROOT / "Snakefile", *sorted(ROOT.glob("workflow/rules/*.smk"))]

# They run what is in a file.
MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load"}
CALLS |= {"yaml.unsafe_load", "yaml.full_load", "pd.read_pickle", "tempfile.mktemp"}
CALLS |= {"subprocess.getoutput", "subprocess.getstatusoutput"}
METHODS = {"extract", "extractall", "unpack_archive"}
OPTIONS = {"shell": True, "allow_pickle": True, "verify": False}


def forbidden(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from {alias.name.partition(".")[0] for alias in node.names} & MODULES
        elif isinstance(node, ast.ImportFrom):
            yield from {(node.module or "").partition(".")[0]} & MODULES
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            yield from {name} & CALLS
            yield from {name.rpartition(".")[2]} & METHODS
            yield from (
                f"{keyword.arg}={keyword.value.value}"
                for keyword in node.keywords
                if isinstance(keyword.value, ast.Constant)
                and keyword.arg in OPTIONS
                and OPTIONS[keyword.arg] is keyword.value.value
            )


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_runs_what_is_in_a_file(path):
    assert list(forbidden(ast.parse(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    "code",
    [
        *("import pickle", "import joblib.memory", "from marshal import loads", "eval('1')"),
        *("np.load(path, allow_pickle=True)", "yaml.load(text)", "run(line, shell=True)"),
        *("tar.extractall()", "requests.get(url, verify=False)", "tempfile.mktemp()"),
    ],
)
def test_what_runs_code_is_recognized(code):
    assert list(forbidden(ast.parse(code)))


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.name)
def test_no_rule_has_a_shell_line_and_all_code_is_in_scripts(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"^\s*(shell|run|notebook|wrapper|cwl):", text, re.MULTILINE)
    words = set(re.findall(r"\w+", text))
    assert not words & (MODULES | {"eval", "exec", "system", "popen", "shell"})


def test_every_wildcard_is_bound_to_words_without_slash_space_or_shell_characters():
    text = "\n".join(path.read_text(encoding="utf-8") for path in RULES)
    outputs = re.findall(r'^\s+(?:\w+=)?"(results/[^"]*\{[^"]*)",?$', text, re.MULTILINE)
    used = {name for output in outputs for name in re.findall(r"\{(\w+)\}", output)}
    bound = dict(re.findall(r'^\s{4,8}(\w+)=(r?"[^"]+"|"\|"\.join\(\w+\)),$', text, re.MULTILINE))
    assert used
    assert used <= set(bound)
    for name in used:
        if bound[name].startswith('"|".join'):
            continue
        pattern = re.compile(ast.literal_eval(bound[name]))
        for hostile in ["../x", "first_passage_/x", "a b", "1;x", "first_passage_$(x)", "1\n", ""]:
            assert not pattern.fullmatch(hostile), (name, hostile)


def snakemake(folder: Path, *arguments: str, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(root / "Snakefile")]
    command += ["--workflow-profile", str(ROOT / "profiles" / "default"), "--cores", "1"]
    return subprocess.run(
        [*command, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.workflow
def test_a_target_that_looks_like_a_command_and_leads_outside_is_refused(tmp_path):
    folder = tmp_path / "inner"
    folder.mkdir()
    run = snakemake(folder, "results/data/../../$(touch pwned)\n.nc")
    assert run.returncode != 0
    assert "MissingRuleException" in run.stderr
    assert not list(tmp_path.rglob("pwned*"))
    assert [path.name for path in tmp_path.iterdir()] == ["inner"]


@pytest.mark.workflow
def test_a_folder_that_looks_like_a_command_is_only_a_folder(tmp_path):
    hostile = "; touch pwned $(touch pwned) `touch pwned` ' \" ../{wildcards.data_set}"
    overlay = {"data": {"sources": ["folder"], "folder": hostile}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(overlay))
    run = snakemake(tmp_path, "results/data/mnist.nc", "--configfile", "study.yaml")
    assert run.returncode != 0
    assert "is no folder" in run.stderr
    assert "Traceback" not in run.stderr
    assert not list(tmp_path.rglob("pwned*"))


@pytest.mark.workflow
def test_a_broken_config_yaml_stops_with_one_line(tmp_path):
    shutil.copy2(ROOT / "Snakefile", tmp_path)
    (tmp_path / "config.yaml").write_text("seed:\t1\n")
    run = snakemake(tmp_path, root=tmp_path)
    assert run.returncode != 0
    errors = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert str(tmp_path / "config.yaml") in errors[0]
    assert "Traceback" not in run.stderr


PIP_AUDIT = """
import json, sys
assert {"--require-hashes", "--disable-pip"} <= set(sys.argv)
answer = open(__file__ + ".answer").read()
print(answer, file=sys.stdout if answer.startswith("{") else sys.stderr)
sys.exit(1)
"""
UNKNOWN = {"name": "numpy", "skip_reason": "not found"}
SOUND = {"name": "scipy", "version": "1.16", "vulns": []}
FAULTY = {"name": "jax", "version": "0.1", "vulns": [{"id": "PYSEC-0"}, {"id": "X-1"}]}


@pytest.mark.parametrize(
    ("answer", "status", "says"),
    [
        ("Traceback\nurllib3.ConnectionError: no name", 0, "was not audited: no database"),
        ("ERROR: jax has no hash", 1, "could not audit requirements.lock: ERROR: jax has no hash"),
        ({"dependencies": [UNKNOWN]}, 0, "was not audited: no database"),
        ({"dependencies": [UNKNOWN, SOUND]}, 0, "0 of 1 packages are vulnerable"),
        ({"dependencies": [SOUND, FAULTY]}, 1, "error: jax 0.1: PYSEC-0, X-1"),
    ],
    ids=["no connection", "bad lock", "no answer", "sound", "faulty"],
)
def test_the_audit_fails_by_known_vulnerabilities_and_bad_locks_alone(
    answer, status, says, tmp_path
):
    (tmp_path / "pip_audit.py").write_text(PIP_AUDIT)
    text = answer if isinstance(answer, str) else json.dumps(answer)
    (tmp_path / "pip_audit.py.answer").write_text(text)
    run = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "system" / "audit.py")],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == status
    assert says in run.stdout + run.stderr


def test_a_link_in_the_place_of_a_temporary_file_is_not_followed(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("kept")
    monkeypatch.setattr(secrets, "token_hex", lambda _: "guessed")
    (tmp_path / ".file.nc.guessed.tmp").symlink_to(victim)
    with pytest.raises(SgdEscapeError, match="was not written: File exists"):
        storage.write_bytes_atomically(tmp_path / "file.nc", b"new")
    assert victim.read_text() == "kept"


def test_a_link_in_the_place_of_a_result_is_replaced_and_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("kept")
    (tmp_path / "file.nc").symlink_to(victim)
    storage.write_bytes_atomically(tmp_path / "file.nc", b"new")
    assert victim.read_text() == "kept"
    assert (tmp_path / "file.nc").read_bytes() == b"new"


def test_the_names_of_temporary_files_cannot_be_guessed(tmp_path, monkeypatch):
    names = []
    monkeypatch.setattr(os, "replace", lambda temporary, _: names.append(temporary.name))
    for _ in range(20):
        storage.write_bytes_atomically(tmp_path / "file.nc", b"new")
    assert len(set(names)) == 20
