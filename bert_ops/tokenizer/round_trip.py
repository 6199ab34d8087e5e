"""The round trip: what a sentence becomes when its ids are decoded, for a sample of the sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders

from bert_ops.quality.rows import excerpts
from bert_ops.seeding import generator
from bert_ops.tokenizer import wordpiece
from bert_ops.tokenizer.store import TokenStore

#: Rows that are drawn for each sentence that is wanted: some hold unknown tokens or no text.
_SPARE = 4


def draw(rows: int, *, amount: int, seed: int) -> NDArray[np.int64]:
    """Draw rows of sentences.parquet, in a seeded order: more than ``amount``, because not every one can be used."""
    if not rows:
        return np.zeros(0, np.int64)
    drawn = generator(seed, "round_trip").choice(rows, min(rows, _SPARE * amount), replace=False)
    return drawn.astype(np.int64)


def round_trip_table(
    sample: Mapping[int, dict[str, Any]],
    store: TokenStore,
    tokenizer: Tokenizer,
    *,
    order: NDArray[np.int64],
    amount: int,
) -> pd.DataFrame:
    """Table ``round_trip``: whether the ids of a sentence are stored, and whether they decode to it.

    Args:
        sample: by row, sentences with text, doc_id, position, split and their number in the store's split (place).
        store: the store.
        tokenizer: the tokenizer that made it.
        order: rows in the order in which they were drawn.
        amount: sentences to look at, the first drawn ones without unknown tokens.

    """
    # The tokenizer's own decoder also contracts English ("do not" to "don't"); here nothing may change but spaces.
    decoder = decoders.WordPiece(prefix=wordpiece.CONTINUATION, cleanup=False)
    unknown = wordpiece.special_ids(tokenizer).unk
    rows: list[dict[str, Any]] = []
    drawn = [sample[row] for row in order.tolist() if row in sample]
    encoded = tokenizer.encode_batch_fast([row["text"] for row in drawn], add_special_tokens=False)
    for row, encoding in zip(drawn, encoded, strict=True):
        ids = encoding.ids
        if unknown in ids or len(rows) == amount:
            continue
        back = decoder.decode([str(tokenizer.id_to_token(token)) for token in ids])
        text = tokenizer.normalizer.normalize_str(row["text"])
        view = store.views.get(row["split"])
        stored = view is not None and row["place"] < view.sentences and view.sentence(row["place"]).tolist() == ids
        rows.append(
            {
                "doc_id": row["doc_id"],
                "position": row["position"],
                "text": row["text"],
                "back": back,
                "comes_back": _without_spaces(back) == _without_spaces(text),
                "is_stored": stored,
            }
        )
    return pd.DataFrame(
        {
            **{name: pd.Series([row[name] for row in rows], dtype=object) for name in ("doc_id", "position")},
            "excerpt": excerpts(pa.array([row["text"] for row in rows], pa.string())),
            "decoded": excerpts(pa.array([row["back"] for row in rows], pa.string())),
            **{name: np.array([row[name] for row in rows], bool) for name in ("comes_back", "is_stored")},
        }
    )


def _without_spaces(text: str) -> str:
    return "".join(text.split())
