"""``bert-ops sizes``: what a model of each size costs here, before a run; ``bert-ops sizes mini`` gives the preset.

A preset is pasted into ``params.yaml``, or set by the options that ``--overrides`` prints: the values themselves stand
in the file that DVC tracks, so a preset that changes later changes no run unseen.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from bert_ops.model import sizes
from bert_ops.model.params import ModelParams
from bert_ops.pretrain.params import PretrainParams
from bert_ops.progress import duration
from bert_ops.schema import load_section
from bert_ops.tokenizer.params import TokenizerParams

#: Where the architecture stands in params.yaml.
_SECTION = "pretrain.model"


@dataclass(frozen=True)
class Cost:
    """What a model costs.

    Args:
        name: preset, or where it stands.
        layers: transformer layers.
        hidden_size: width.
        heads: attention heads.
        parameters: numbers of them, by part.
        weights_mib: MiB of the weights in each form.
        training_mib: MiB of weights, gradients and AdamW's moments while it trains.
        flops: a token.
        seconds: of the run of params.yaml at the machine's GEMM peak; None if that was not measured.

    """

    name: str
    layers: int
    hidden_size: int
    heads: int
    parameters: sizes.Parameters
    weights_mib: dict[str, float]
    training_mib: float
    flops: sizes.Flops
    seconds: float | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("preset", nargs="?", help="print this preset as it stands in params.yaml")
    parser.add_argument("--overrides", action="store_true", help="print the preset as options of `dvc exp run`")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    parser.add_argument("--vocab", type=int, help="tokens of the vocabulary (tokenizer.vocab_size of params.yaml)")
    parser.add_argument("--no-peak", action="store_true", help="do not measure this machine")


def run(arguments: argparse.Namespace) -> None:
    """Print the table, or one preset.

    Raises:
        InputError: there is no such preset, or params.yaml cannot be used.

    """
    if arguments.preset and arguments.overrides:
        sys.stdout.write(" ".join(overrides(arguments.preset)) + "\n")
        return
    params = load_section(arguments.params, "pretrain", PretrainParams)
    vocab_size = arguments.vocab
    if vocab_size is None:
        vocab_size = load_section(arguments.params, "tokenizer", TokenizerParams).vocab_size
    if arguments.preset:
        sys.stdout.write("\n".join(block(arguments.preset, params, vocab_size=vocab_size)) + "\n")
        return
    peak = None if arguments.no_peak else measured_peak(params)
    own = sizes.name_of(params.model)
    models = {name: sizes.load_preset(name) for name in sizes.preset_names()}
    models[f"yours ({own})" if own else "yours"] = params.model
    costs = [cost(name, model, params, vocab_size=vocab_size, peak=peak) for name, model in models.items()]
    if arguments.json:
        run_figures = {"tokens": tokens_of(params), "vocab_size": vocab_size, "peak": peak}
        value = {**run_figures, "sizes": [{**asdict(c), "total": c.parameters.total} for c in costs]}
        sys.stdout.write(json.dumps(value, indent=2) + "\n")
        return
    sys.stdout.write("\n".join(table(costs, params, vocab_size=vocab_size, peak=peak)) + "\n")


def cost(name: str, model: ModelParams, params: PretrainParams, *, vocab_size: int, peak: float | None) -> Cost:
    """What a model would cost in the run of params.yaml."""
    config = model.config(vocab_size=vocab_size)
    parameters = sizes.count_parameters(config)
    flops = sizes.flops_per_token(config, sequence_tokens=params.sequence_tokens, masked_share=_masked_share(params))
    return Cost(
        name=name,
        layers=model.layers,
        hidden_size=model.hidden_size,
        heads=model.heads,
        parameters=parameters,
        weights_mib={form: parameters.mib(form) for form in sizes.BYTES},
        training_mib=parameters.total * sizes.TRAINING_BYTES / 2**20,
        flops=flops,
        seconds=None if peak is None else tokens_of(params) * flops.training / peak,
    )


def _masked_share(params: PretrainParams) -> float:
    """Mean share of tokens that are predicted: the rate moves in a line."""
    return (params.masking.rate + params.masking.final_rate) / 2


def tokens_of(params: PretrainParams) -> int:
    """Tokens that the run reads; the most that it may, where the batch follows a measurement."""
    growth = params.batch.growth
    if growth.kind != "ramp":
        return params.steps * params.batch.tokens
    ramp = min(growth.steps, params.steps)
    end = growth.start_tokens + (params.batch.tokens - growth.start_tokens) * ramp / growth.steps
    return round(ramp * (growth.start_tokens + end) / 2) + (params.steps - ramp) * params.batch.tokens


def measured_peak(params: PretrainParams) -> float:
    """GEMM peak of this machine at the run's threads and precision, FLOP/s."""
    import torch

    from bert_ops.training.device import pick_device, resolve
    from bert_ops.training.utilisation import gemm_peak

    torch.set_num_threads(params.threads)
    device = pick_device()
    return gemm_peak(device, resolve(params.precision, device))


def overrides(name: str) -> list[str]:
    """A preset as options of ``dvc exp run``."""
    values = sizes.load_preset(name).model_dump()
    return [word for key, value in values.items() for word in ("-S", f"{_SECTION}.{key}={value}")]


def block(name: str, params: PretrainParams, *, vocab_size: int) -> Iterator[str]:
    """A preset as it stands in params.yaml, under ``pretrain:``, with what it costs."""
    found = cost(name, sizes.load_preset(name), params, vocab_size=vocab_size, peak=None)
    yield f"  # {name}: {found.parameters.total:,} parameters with a vocabulary of {vocab_size:,},"
    yield f"  # {found.flops.training / 1e6:,.1f} MFLOP a token to train (see `bert-ops sizes`)"
    yield "  model:"
    for line in sizes.preset_file(name).read_text(encoding="utf-8").splitlines():
        yield f"    {line}".rstrip()


def table(costs: list[Cost], params: PretrainParams, *, vocab_size: int, peak: float | None) -> Iterator[str]:
    """Yield the lines of the table."""
    upto = "up to " if params.batch.growth.kind == "noise_scale" else ""
    yield (
        f"Vocabulary {vocab_size:,}; rows of {params.sequence_tokens} tokens, {_masked_share(params):.0%} predicted; "
        f"the run of params.yaml reads {upto}{tokens_of(params):,} tokens."
    )
    if peak is not None:
        yield f"GEMM peak of this machine: {peak / 1e9:,.0f} GFLOP/s ({params.precision}, {params.threads} threads)."
    yield ""
    width = max(len(c.name) for c in costs)
    yield (
        f"{'':<{width}}{'layers':>8}{'':>6}  {'million parameters':^25}  {'MiB of weights':^15} {'MiB to':>7}"
        f"{'MFLOP a token':>15}{'run':>12}"
    )
    yield (
        f"{'size':<{width}}{'× width':>8}{'heads':>6}  {'all':>6}{'embed':>6}{'layers':>7}{'heads':>6}  "
        f"{'fp32':>5}{'bf16':>5}{'int8':>5} {'train':>7}{'forward':>8}{'train':>7}{'at peak':>12}"
    )
    for c in costs:
        n = c.parameters
        time = "" if c.seconds is None else duration(c.seconds)
        yield (
            f"{c.name:<{width}}{f'{c.layers}×{c.hidden_size}':>8}{c.heads:>6}  {_millions(n.total):>6}"
            f"{_millions(n.embedding):>6}{_millions(n.encoder):>7}{_millions(n.heads):>6}  "
            f"{c.weights_mib['float32']:>5,.0f}{c.weights_mib['bfloat16']:>5,.0f}{c.weights_mib['int8']:>5,.0f} "
            f"{c.training_mib:>7,.0f}{c.flops.forward / 1e6:>8,.1f}{c.flops.training / 1e6:>7,.1f}{time:>12}"
        ).rstrip()
    yield ""
    yield "MiB to train: weights, gradients and AdamW's moments; activations come on top (pretrain.batch.micro_tokens)."
    yield "A run reaches part of the peak: `bert-ops log` says which. `bert-ops sizes NAME` prints a preset."


def _millions(count: int) -> str:
    return f"{count / 1e6:,.2f}" if count < 1e7 else f"{count / 1e6:,.1f}"
