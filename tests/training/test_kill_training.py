"""Pretraining that is killed, stopped and robbed of files again and again ends as if nothing had happened.

Each life of the trainer is the real command in a process of its own. It is killed (SIGKILL) at a random moment: while
it starts, trains, evaluates, writes a checkpoint, or saves the model. Between lives a file of the newest checkpoint is
sometimes cut short, changed by one bit, or removed. Whenever a run comes to its end, the bytes of its model and all
figures that do not depend on the clock are those of a run that was left alone. ``TRAINER_KILLS`` sets the number.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from bert_ops.errors import BertOpsError
from bert_ops.training import checkpoint_files as files
from bert_ops.training.run_log import deterministic, read_log

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("TRAINER_KILLS", "4"))

#: What a run writes, beside the model, that has to be the same; the log is compared by its deterministic part.
SAME = ["model/model.safetensors", "model/config.json", "model/README.md", "history.tsv", "results.json"]

#: Starts the command again and again from a process that has torch loaded: a life then takes less than a second.
#: Reads the file for stderr and the arguments; writes the id of the new process, and how it ended.
_SERVER = """
import os, sys
import torch
from bert_ops import __main__ as command
from bert_ops.pretrain import stage
print("ready", flush=True)
for line in sys.stdin:
    where, *argv = line.rstrip("\\n").split("\\t")
    child = os.fork()
    if child == 0:
        os.dup2(os.open(where, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        code = 1
        try:
            code = command.main(argv)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
        os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Server:
    """Starts trainers one after the other."""

    def __init__(self, folder: Path) -> None:
        self.stderr = folder / "stderr"
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def start(self, argv: list[str]) -> int:
        """Start a life; its process id."""
        assert self.process.stdin is not None
        self.process.stdin.write("\t".join([str(self.stderr), *argv]) + "\n")
        self.process.stdin.flush()
        return int(self._line())

    def end(self) -> tuple[int, str]:
        """Wait for it; exit code (negative: the signal) and what it said."""
        return int(self._line()), self.stderr.read_text(encoding="utf-8", errors="replace")

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server"))
    yield made
    made.close()


def settings(params: dict, *, unstable: bool) -> dict:
    """A run of a second or so that checkpoints as often as it can; the unstable one skips steps and rolls back."""
    changed = yaml.safe_load(yaml.safe_dump(params))
    section = changed["pretrain"]
    section |= {
        "steps": 90,
        "batch": {
            "tokens": 384,
            "micro_tokens": 96,
            "growth": {"kind": "ramp", "start_tokens": 96, "steps": 70, "rate_scaling": "sqrt"},
        },
        "evaluate_every_steps": 7,
        "log_every_steps": 3,
        "evaluation_sequences": 6,
        "embedding_init": {**section["embedding_init"], "kind": "normal"},
        "averaging": {"decay": 0.9},
        "checkpoints": {"every_s": 1e-9, "every_steps": 10, "keep_last": 3, "keep_best": 1, "milestone_steps": 50},
    }
    section["model"] |= {"hidden_dropout": 0.1, "attention_dropout": 0.1}
    if unstable:
        section["stability"] |= {
            "spike_deviations": 1.5,
            "window": 20,
            "max_skips_in_a_row": 1,
            "rate_factor": 0.9,
            "max_rollbacks": 100,
        }
    return changed


def arguments(folder: Path, params: Path, *, tokens: Path, tokenizer: Path) -> list[str]:
    folder.mkdir(exist_ok=True)
    named = {
        "params": params,
        "tokens": tokens,
        "tokenizer": tokenizer,
        "out": folder / "model",
        "metrics": folder / "metrics.json",
        "history": folder / "history.tsv",
        "results": folder / "results.json",
        "run-log": folder / "log.jsonl",
        "speed-page": folder / "speed.html",
        "checkpoints": folder / "checkpoints",
    }
    return ["pretrain", *(text for name, value in named.items() for text in (f"--{name}", str(value)))]


def result(folder: Path) -> dict[str, Any]:
    """What a finished run has made."""
    assert not list(folder.glob("checkpoints/*/step-*"))
    return {name: (folder / name).read_bytes() for name in SAME} | {
        "log": [repr(record) for record in deterministic(read_log(folder / "log.jsonl"))]
    }


class Campaign:
    """One folder in which runs are begun, killed and finished."""

    def __init__(self, server: Server, folder: Path, argv: list[str], expected: dict[str, Any], *, seed: int) -> None:
        self.server, self.folder, self.argv, self.expected = server, folder, argv, expected
        self.rng = random.Random(seed)
        self.count: Counter[str] = Counter()
        #: Checkpoints that were damaged here; all others have to be whole.
        self.damaged: set[str] = set()
        self.resumed = 0

    def checkpoints(self) -> list[Path]:
        return [path for run in self.folder.glob("checkpoints/*") for path in files.folders(run)]

    def temporary(self) -> list[Path]:
        return list(self.folder.glob("checkpoints/*/.step-*"))

    def live(self, *, to_the_end: bool = False) -> None:
        """One life, from its start to its end or its death, and what has to hold then."""
        whole = [path for path in self.checkpoints() if path.name not in self.damaged]
        broken = [path.name for path in self.checkpoints() if path.name in self.damaged]
        process = self.server.start(self.argv)
        number = signal.SIGKILL if self.rng.random() < 0.9 else signal.SIGTERM
        if not to_the_end:
            self.wait(process)
            with suppress(ProcessLookupError):
                os.kill(process, number)
        code, said = self.server.end()
        assert "Traceback" not in said, said
        if "resuming at step" in said:
            self.resumed += 1
            # The newest whole one, and all newer ones named.
            assert f"resuming at step {files.step_of(whole[-1])} of" in said, (said, whole)
            newer = [name for name in broken if name > whole[-1].name]
            assert all(f"skipping the damaged checkpoint {name}" in said for name in newer), (said, newer)
        if code == 0:
            self.finish()
        elif code == -signal.SIGKILL:
            self.count["killed"] += 1
            self.count["while writing"] += bool(self.temporary())
        else:
            assert code in {-signal.SIGTERM, 143}, (code, said)
            self.count["asked to stop"] += 1
            if code == 143:
                assert "checkpoint is written" in said and "run the same command again" in said
        for path in self.checkpoints():
            if path.name not in self.damaged:
                files.read(path)
        if code != 0:
            self.damage()

    def wait(self, process: int) -> None:
        """Until a random moment, or until a checkpoint is just being written."""
        deadline = time.monotonic() + 60
        if self.rng.random() < 0.2:
            time.sleep(self.rng.uniform(0, 1))
            return
        seen = {path.name for path in self.checkpoints()}
        wanted = self.rng.randint(1, 12)
        while time.monotonic() < deadline and self.is_alive(process):
            if len({path.name for path in self.checkpoints()} | seen) >= len(seen) + 1:
                wanted -= 1
                seen |= {path.name for path in self.checkpoints()}
            if wanted <= 0 and (self.temporary() or self.rng.random() < 0.01):
                return
            time.sleep(0.0005)

    @staticmethod
    def is_alive(process: int) -> bool:
        try:
            return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    def damage(self) -> None:
        """Now and then, something happens to the newest checkpoint, so long as there are others."""
        whole = [path for path in self.checkpoints() if path.name not in self.damaged]
        if len(whole) < 2 or self.rng.random() < 0.6:
            return
        path = whole[-1] / self.rng.choice([files.TENSORS, files.STATE, files.MANIFEST])
        content = bytearray(path.read_bytes())
        how = self.rng.choice(["truncated", "flipped", "removed"])
        if how == "truncated":
            path.write_bytes(content[: self.rng.randrange(len(content))])
        elif how == "flipped":
            content[self.rng.randrange(len(content))] ^= 1 << self.rng.randrange(8)
            path.write_bytes(content)
        else:
            path.unlink()
        with pytest.raises(BertOpsError):
            files.read(path.parent)
        self.damaged.add(path.parent.name)
        self.count[how] += 1

    def finish(self) -> None:
        """Compare a run that came to its end, and begin the next one."""
        made = result(self.folder)
        for name in self.expected:
            assert made[name] == self.expected[name], name
        self.count["finished"] += 1
        self.damaged.clear()
        shutil.rmtree(self.folder)
        self.folder.mkdir()


@pytest.mark.parametrize("unstable", [False, True], ids=["calm", "unstable"])
def test_killed_at_random_moments_training_ends_as_if_it_had_not_been(
    tmp_path: Path, params: dict, tokens_folder: Path, tokenizer_folder: Path, server: Server, unstable: bool
) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings(params, unstable=unstable)), encoding="utf-8")

    def argv(name: str) -> list[str]:
        return arguments(tmp_path / name, tmp_path / "params.yaml", tokens=tokens_folder, tokenizer=tokenizer_folder)

    command = [sys.executable, "-m", "bert_ops", *argv("whole")]
    alone = subprocess.run(command, capture_output=True, text=True, check=False)
    assert alone.returncode == 0, alone.stderr
    expected = result(tmp_path / "whole")
    rollbacks = sum("'rollback'" in line for line in expected["log"])
    assert (rollbacks > 0) == unstable

    campaign = Campaign(server, tmp_path / "killed", argv("killed"), expected, seed=11)
    while campaign.count["killed"] < (KILLS + 1) // 2:
        campaign.live()
    campaign.live(to_the_end=True)
    print(f"\n{dict(campaign.count)}, resumed {campaign.resumed} times, {rollbacks} rollbacks in each run")
    assert campaign.count["finished"] >= 1 and campaign.resumed >= 1
    if KILLS >= 100:
        assert campaign.count["while writing"] >= 5
        assert all(campaign.count[how] for how in ("truncated", "flipped", "removed", "asked to stop"))
