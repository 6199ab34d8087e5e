"""The command line: fast help, one message an error, exit codes that scripts can read."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from bert_ops import __main__ as cli
from bert_ops.errors import ArtifactError, InputError, StorageError, ValidationFailed


def python(code, *, timeout=60):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout, check=False)


def test_help_lists_every_command_without_importing_what_is_heavy():
    code = (
        "import sys\nfrom bert_ops.__main__ import main\n"
        "try: main(['--help'])\nexcept SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'numpy', 'pandas', 'pyarrow', 'evidently', 'great_expectations', 'onnxruntime', 'dagster'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    for name, command in cli.COMMANDS.items():
        assert f"  {name} " in done.stdout and command.summary in done.stdout


def test_module_runs_as_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "bert_ops", "--version"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0 and done.stdout.startswith("bert-ops ")


@pytest.mark.parametrize("argv", [["nonsense"], []])
def test_unknown_or_no_command_lists_what_there_is(argv, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(argv)
    assert end.value.code == 2
    message = capsys.readouterr().err
    if argv:
        assert "nonsense" in message
        assert all(name in message for name in cli.COMMANDS)
    else:
        assert "COMMAND" in message


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_command_explains_its_options(name, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "--params" in text and "--debug" in text
    assert text.count("\n") > 8


@pytest.fixture
def command(monkeypatch):
    """Replace the command `doctor` by one that does what the test says."""

    def install(work):
        module = SimpleNamespace(add_arguments=lambda parser: None, run=lambda arguments: work())
        monkeypatch.setattr(cli, "import_module", lambda name: module)

    return install


def raising(error):
    def work():
        raise error

    return work


@pytest.mark.parametrize("kind", [InputError, ArtifactError, ValidationFailed, StorageError])
def test_error_of_the_user_is_one_message(command, capsys, kind):
    command(raising(kind("`a.b` is 3", allowed="1 to 2", remedy="lower it")))
    assert cli.main(["doctor"]) == kind.exit_code
    assert capsys.readouterr().err == "bert-ops doctor: `a.b` is 3\n  allowed: 1 to 2\n  remedy:  lower it\n"


def test_debug_shows_where_the_error_arose(command):
    command(raising(InputError("wrong")))
    with pytest.raises(InputError, match="wrong"):
        cli.main(["doctor", "--debug"])


def test_full_disk_outside_the_writers_is_a_storage_error(command, capsys):
    import errno

    command(raising(OSError(errno.ENOSPC, "No space left on device")))
    assert cli.main(["doctor"]) == StorageError.exit_code
    assert "the disk is full" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "stopped"),
        (MemoryError(), 5, "out of memory"),
        (BrokenPipeError(), 141, ""),
    ],
)
def test_other_ends_have_their_customary_codes(command, capsys, error, code, said):
    command(raising(error))
    assert cli.main(["doctor"]) == code
    message = capsys.readouterr().err
    assert said in message and "Traceback" not in message


def test_bug_of_ours_keeps_its_traceback(command):
    command(raising(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        cli.main(["doctor"])


def test_stage_dies_with_the_process_that_started_it():
    """A killed `dvc` must leave no stage running: the child of a child ends when the one between is killed."""
    if sys.platform != "linux":
        pytest.skip("the parent-death signal is Linux's")
    stage = "from bert_ops.__main__ import die_with_parent; die_with_parent(); print('ready', flush=True); input()"
    between = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {stage!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "child.stdout.readline(); print(child.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", between], stdout=subprocess.PIPE, text=True) as process:
        pid = int(process.stdout.readline())
        process.kill()
    import time
    from pathlib import Path

    status = Path(f"/proc/{pid}/status")
    for _ in range(100):
        if not status.exists() or "\nState:\tZ" in status.read_text():
            return
        time.sleep(0.05)
    pytest.fail(f"process {pid} outlived the one that started it")


def test_missing_package_is_named_with_its_remedy(monkeypatch, capsys):
    def absent(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name="evidently.core")

    monkeypatch.setattr(cli, "import_module", absent)
    assert cli.main(["evaluate"]) == InputError.exit_code
    said = capsys.readouterr().err
    assert "the package evidently is not installed" in said and "remedy" in said


@pytest.mark.parametrize("seed", [None, "7", "random"])
def test_hashes_of_strings_are_fixed_before_a_command_runs(monkeypatch, seed):
    started = []
    monkeypatch.setattr(cli.os, "execv", lambda program, argv: started.append((program, argv)))
    monkeypatch.setattr(cli.sys, "argv", ["bert-ops", "--version"])
    if seed is None:
        monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    else:
        monkeypatch.setenv("PYTHONHASHSEED", seed)
    with pytest.raises(SystemExit):
        cli.entry()
    assert started == [(sys.executable, [sys.executable, "-m", "bert_ops", "--version"])]
    assert cli.os.environ["PYTHONHASHSEED"] == "0"
    with pytest.raises(SystemExit):
        cli.entry()
    assert len(started) == 1


def test_a_command_starts_anew_and_ends_with_its_own_code(tmp_path):
    environment = {**cli.os.environ, "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-m", "bert_ops", "params", "--params", str(tmp_path / "none.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == InputError.exit_code and "none.yaml does not exist" in done.stderr


@pytest.mark.parametrize(
    ("command", "set_before", "expected"),
    [("pretrain", None, True), ("finetune", None, True), ("ingest", None, False), ("pretrain", "mine=1", False)],
)
def test_training_keeps_its_memory_unless_the_user_says_otherwise(monkeypatch, command, set_before, expected):
    if set_before is None:
        monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    else:
        monkeypatch.setenv("GLIBC_TUNABLES", set_before)
    wanted = cli.wanted_environment([command])
    assert ("GLIBC_TUNABLES" in wanted) is expected
    for name, value in wanted.items():
        monkeypatch.setenv(name, value)
    assert set(cli.wanted_environment([command])) == {"PYTHONHASHSEED"}  # a process does not begin anew twice
