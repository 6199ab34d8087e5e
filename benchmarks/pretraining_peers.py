"""The peers of the pretraining benchmark, all through the ``Trainer`` of transformers.

* ``padded``: what BERT's recipe gives. Pairs of segments, each padded to the length of a row; masked tokens and next
  sentence (``BertForPreTraining``); float32; dropout 0.1, the default of ``BertConfig``.
* ``grouped``: as ``run_mlm.py``. Texts one after the other, cut into full rows; ``BertForMaskedLM``; float32; dropout.
* ``best``: grouped, with bfloat16 autocast, fused AdamW, no dropout, and a loader process if that is faster.

Each has the faster of the two implementations of attention.

All mask as they go (``DataCollatorForLanguageModeling``) and clip gradients. Logging, saving and evaluation are off.
Examples lie in memory as Python lists or tensors, which is faster than reading them from Arrow, as the library's own
scripts do. A batch that would not fit into the memory of a GPU is read in several passes (gradient accumulation).
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from pretraining_contenders import Gate, start
from pretraining_data import MASKED_SHARE, Setting, chunks, examples
from torch import Tensor

from bert_ops.model.sizes import load_preset

NAMES = ("padded", "grouped", "best")

#: Positions that ``best`` reads in one pass on a GPU; the peers in float32 half as many.
PASS_POSITIONS = 65536

#: Examples that a peer draws from; more would change nothing but memory.
POOL = 8192


@dataclass(frozen=True)
class Choice:
    """What a peer may choose among."""

    attention: str = "sdpa"
    loader_processes: int = 0
    compiled: bool = False

    def __str__(self) -> str:
        words = [f"{self.attention} attention", f"{self.loader_processes} loader processes"]
        return ", ".join([*words, "torch.compile"] if self.compiled else words)


class Examples(torch.utils.data.Dataset[Any]):
    """A list as a dataset."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, place: int) -> Any:
        return self.items[place]


def installed() -> bool:
    """Whether the library is here."""
    return all(find_spec(name) is not None for name in ("transformers", "accelerate"))


def fastest(name: str, setting: Setting, *, seconds: float) -> Choice:
    """The fastest of the settings that a peer may choose among, each tried for some seconds."""
    tried = [Choice(), Choice(attention="eager")]
    if name == "best":
        tried += [Choice(loader_processes=1)]
        if setting.device == "cuda":
            tried += [Choice(loader_processes=4), Choice(loader_processes=4, compiled=True)]
    rates: dict[Choice, float] = {Choice(): 0.0}
    for choice in tried:
        try:
            contender = start(f"{name} ({choice})", train, name, setting, choice)
            contender.ready()
            first = contender.measure(1)
        except SystemExit as error:  # torch.compile needs a compiler, processes need shared memory
            print(error)
            continue
        steps = max(1, round(seconds / first.seconds))
        rates[choice] = max(contender.measure(steps, lead_in=0).rate for _ in range(2))
        contender.close()
        print(f"  {name} with {choice}: {rates[choice]:,.0f} real tokens/s")
    return max(rates, key=lambda choice: rates[choice])


def train(gate: Gate, name: str, setting: Setting, choice: Choice) -> None:
    """Train until the gate closes; the body of a contender."""
    torch.set_num_threads(setting.threads)
    data, rows, share = dataset(name, setting)
    gate.facts = {"rows": rows, "real_share": share, "setting": str(choice)}
    model = build_model(name, setting, choice)
    passes = passes_of(name, setting, rows)
    full = math.ceil(rows / passes) * setting.sequence_tokens

    def real_tokens(named: dict[str, Any]) -> Tensor | int:
        return named["attention_mask"].sum() if name == "padded" else full

    gate.watch(model, real_tokens, passes=passes)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(name, model, data, setting, choice, rows=rows, folder=folder)
        trainer.train()


def build_model(name: str, setting: Setting, choice: Choice) -> Any:
    """BERT of the preset's size, from random weights."""
    from transformers import BertConfig, BertForMaskedLM, BertForPreTraining

    size = load_preset(setting.model)
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0} if name == "best" else {}
    config = BertConfig(
        vocab_size=setting.vocab_size,
        hidden_size=size.hidden_size,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=size.feed_forward_size,
        max_position_embeddings=size.max_positions,
        initializer_range=size.initializer_range,
        attn_implementation=choice.attention,
        **dropout,
    )
    torch.manual_seed(setting.seed)
    return (BertForPreTraining if name == "padded" else BertForMaskedLM)(config)


def build_trainer(
    name: str, model: Any, data: Examples, setting: Setting, choice: Choice, *, rows: int, folder: str, **changes: Any
) -> Any:
    """The ``Trainer`` of a peer; ``changes`` go to its arguments."""
    from transformers import DataCollatorForLanguageModeling, PrinterCallback, Trainer, TrainingArguments
    from transformers.utils import logging

    logging.set_verbosity_error()
    passes = passes_of(name, setting, rows)
    settings: dict[str, Any] = {
        "output_dir": folder,
        "per_device_train_batch_size": math.ceil(rows / passes),
        "gradient_accumulation_steps": passes,
        "max_steps": 10_000_000,
        "seed": setting.seed,
        "use_cpu": setting.device == "cpu",
        "bf16": name == "best",
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "eval_strategy": "no",
        "disable_tqdm": True,
        "dataloader_drop_last": True,
        "dataloader_num_workers": choice.loader_processes,
        "dataloader_persistent_workers": choice.loader_processes > 0,
        "dataloader_pin_memory": setting.device == "cuda",
        "torch_compile": choice.compiled,
    }
    if name == "best":
        settings["optim"] = "adamw_torch_fused"
    collator = DataCollatorForLanguageModeling(make_tokenizer(setting), mlm_probability=MASKED_SHARE)
    arguments = TrainingArguments(**(settings | changes))
    trainer = Trainer(model=model, args=arguments, train_dataset=data, data_collator=collator)
    trainer.remove_callback(PrinterCallback)
    return trainer


def passes_of(name: str, setting: Setting, rows: int) -> int:
    """Passes that a batch is read in: on a GPU, logits over the whole vocabulary for every position set a bound."""
    if setting.device == "cpu":
        return 1
    positions = rows * setting.sequence_tokens
    return math.ceil(positions / (PASS_POSITIONS if name == "best" else PASS_POSITIONS // 2))


def dataset(name: str, setting: Setting, *, pool: int | None = POOL) -> tuple[Examples, int, float]:
    """Examples, rows of a batch that has as many real tokens as ours, and the share of real tokens."""
    T, special = setting.sequence_tokens, setting.store.special
    if name != "padded":
        rows = chunks(setting.store["train"], tokens=T, limit=pool)
        if name == "best":
            # The collator stacks bare tensors, which is faster than the dictionaries that it pads.
            return Examples(list(torch.from_numpy(rows))), setting.rows, 1.0
        frame = [special.cls, special.sep]
        marked = [[int(i in frame) for i in row] for row in rows.tolist()]
        items = [
            {"input_ids": ids, "special_tokens_mask": mask} for ids, mask in zip(rows.tolist(), marked, strict=True)
        ]
        return Examples(items), setting.rows, 1.0
    found = examples(setting, pool)
    items, real = [], 0
    for example in found:
        length = len(example.ids)
        real += length
        left = [0] * (T - length)
        frame = [int(i in (special.cls, special.sep)) for i in example.ids.tolist()]
        items.append(
            {
                "input_ids": example.ids.tolist() + [special.pad] * len(left),
                "token_type_ids": example.segments.tolist() + left,
                "attention_mask": [1] * length + left,
                "special_tokens_mask": frame + [1] * len(left),
                "next_sentence_label": example.pair,
            }
        )
    share = real / (T * len(found))
    return Examples(items), max(1, round(setting.rows / share)), share


def make_tokenizer(setting: Setting) -> Any:
    """A tokenizer for the collator, which asks it for special ids, padding and the size of the vocabulary."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    special = setting.store.special._asdict()
    vocabulary = {f"token{i}": i for i in range(setting.vocab_size)}
    names = {number: f"[{name.upper()}]" for name, number in special.items()}
    vocabulary = {names.get(i, word): i for word, i in vocabulary.items()}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]")),
        **{f"{name}_token": f"[{name.upper()}]" for name in special},
    )
