"""`bert-ops sizes`: the table, and presets in a form that params.yaml and DVC take."""

from __future__ import annotations

import argparse
import json
import textwrap
from pathlib import Path

import pytest
import yaml

from bert_ops.errors import InputError
from bert_ops.model import sizes
from bert_ops.params import load_all
from bert_ops.pretrain import show_sizes
from bert_ops.pretrain.params import PretrainParams
from bert_ops.schema import load_section

ROOT = Path(__file__).resolve().parents[2]
PARAMS = ROOT / "params.yaml"


def command(*words: str, params: Path = PARAMS) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--params", type=Path, default=params)
    show_sizes.add_arguments(parser)
    show_sizes.run(parser.parse_args(words))


def test_the_table_names_every_preset_and_the_model_of_the_file(capsys) -> None:
    command("--no-peak")
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert all(len(line) <= 110 for line in lines)
    for name in (*sizes.preset_names(), "yours (tiny)"):
        assert sum(line.startswith(f"{name} ") for line in lines) == 1
    assert "12×768" in out


def test_the_table_is_json_for_tools(capsys) -> None:
    command("--json", "--no-peak", "--vocab", "30522")
    found = json.loads(capsys.readouterr().out)
    base = next(row for row in found["sizes"] if row["name"] == "base")
    assert found["vocab_size"] == 30522 and found["peak"] is None and base["seconds"] is None
    assert base["total"] == sum(base["parameters"].values())
    assert base["weights_mib"]["float32"] == 4 * base["weights_mib"]["int8"] == base["training_mib"] / 4
    assert base["flops"]["training"] == 3 * base["flops"]["forward"]


def test_the_run_takes_its_flops_over_the_peak(monkeypatch) -> None:
    params = load_section(PARAMS, "pretrain", PretrainParams)
    cost = show_sizes.cost("mini", sizes.load_preset("mini"), params, vocab_size=1000, peak=2e11)
    assert cost.seconds == pytest.approx(show_sizes.tokens_of(params) * cost.flops.training / 2e11)
    asked = []
    monkeypatch.setattr(show_sizes, "measured_peak", lambda p: asked.append(p.precision) or 1e12)
    command()
    assert asked == [params.precision]


@pytest.mark.parametrize("name", sizes.preset_names())
def test_a_pasted_preset_is_a_valid_params_file(tmp_path: Path, capsys, name: str) -> None:
    command(name)
    pasted = yaml.safe_load(textwrap.dedent(capsys.readouterr().out))
    raw = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    raw["pretrain"] |= pasted
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    assert load_all(tmp_path / "params.yaml").pretrain.model == sizes.load_preset(name)


def test_overrides_set_every_value_as_dvc_does(capsys) -> None:
    command("small", "--overrides")
    words = capsys.readouterr().out.split()
    assert words[::2] == ["-S"] * (len(words) // 2)
    values = {key: yaml.safe_load(value) for key, value in (word.split("=") for word in words[1::2])}
    assert values == {f"pretrain.model.{k}": v for k, v in sizes.load_preset("small").model_dump().items()}


def test_an_unknown_preset_is_refused() -> None:
    for words in (("huge",), ("huge", "--overrides")):
        with pytest.raises(InputError, match="no model size 'huge'"):
            command(*words)


@pytest.mark.parametrize("vocab", ["0", "-5"])
def test_a_vocabulary_without_tokens_is_refused(vocab: str) -> None:
    with pytest.raises(InputError, match="vocab_size"):
        command("--vocab", vocab, "--no-peak")


@pytest.mark.parametrize(
    ("growth", "tokens"),
    [
        ({"kind": "constant"}, 100 * 1024),
        # Half of the way on average over 50 steps, then whole batches.
        ({"kind": "ramp", "start_tokens": 256, "steps": 50, "rate_scaling": "none"}, 50 * 640 + 50 * 1024),
        # A ramp that the run does not finish: from 256 to 640.
        ({"kind": "ramp", "start_tokens": 256, "steps": 200, "rate_scaling": "none"}, 100 * 448),
    ],
)
def test_tokens_of_a_run_follow_its_batches(growth, tokens: int) -> None:
    params = load_section(PARAMS, "pretrain", PretrainParams)
    batch = params.batch.model_validate({"tokens": 1024, "micro_tokens": 1024, "growth": growth})
    assert show_sizes.tokens_of(params.model_copy(update={"batch": batch, "steps": 100})) == tokens
