"""Columns of tables as arrays of numbers, and rules over them.

Ids and hashes are held as 64-bit hashes of their text: of a hundred million different ones two are taken for equal
with odds of 3e-4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bert_ops.quality.read import SPLITS

if TYPE_CHECKING:
    import pyarrow as pa

Keys = NDArray[np.uint64]
Flags = NDArray[np.bool_]
Numbers = NDArray[np.int64]

#: Split of a row that names none of the three.
NO_SPLIT = len(SPLITS)


def keys(texts: pa.Array) -> Keys:
    """64-bit hash of each text, the same in every process; all nulls have the same one."""
    from pandas.util import hash_array

    hashed: Keys = hash_array(objects(texts), categorize=False)
    return hashed


def objects(texts: pa.Array) -> NDArray[np.object_]:
    """Python strings, None for nulls: what compares as people expect."""
    return np.array(texts.to_pylist(), dtype=object)


def repeated(keys: Keys) -> Flags:
    """Whether the key of a row occurs in another row, too."""
    order = np.argsort(keys, kind="stable")
    same = keys[order][1:] == keys[order][:-1]
    flags = np.zeros(len(keys), bool)
    flags[order[1:][same]] = True
    flags[order[:-1][same]] = True
    return flags


def on_several_sides(keys: Keys, sides: NDArray[Any]) -> Flags:
    """Whether the key of a row also occurs with another side (split, label)."""
    order = np.lexsort((sides, keys))
    ordered, beside = keys[order], sides[order]
    torn = (ordered[1:] == ordered[:-1]) & (beside[1:] != beside[:-1])
    return np.isin(keys, ordered[1:][torn])


def split_numbers(splits: pa.Array) -> NDArray[np.int8]:
    """Index into SPLITS of each name, NO_SPLIT for others."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pc.index_in(splits.cast(pa.string()), pa.array(SPLITS, pa.string()))
    numbers: NDArray[np.int8] = pc.fill_null(found, NO_SPLIT).to_numpy(zero_copy_only=False).astype(np.int8)
    return numbers


def column(table: pa.Table, name: str) -> pa.Array:
    """One column of a batch as one array."""
    import pyarrow as pa

    chunks = table.column(name)
    return chunks.chunk(0) if chunks.num_chunks == 1 else pa.concat_arrays(chunks.chunks or [pa.array([], chunks.type)])


def numbers(table: pa.Table, name: str, *, null: int = -1) -> Numbers:
    """A column of integers or truth values as 64-bit integers; a null becomes ``null``."""
    import pyarrow as pa
    import pyarrow.compute as pc

    filled = pc.fill_null(column(table, name).cast(pa.int64()), null)
    values: Numbers = filled.to_numpy(zero_copy_only=False)
    return values


def numbers_of(encoded: pa.Array) -> Numbers:
    """Positions in the dictionary of an encoded array, -1 for nulls."""
    import pyarrow.compute as pc

    positions: Numbers = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
    return positions


def occurrences(array: pa.Array) -> dict[str, int]:
    """How often each text occurs; a null counts as an empty one."""
    return {entry["values"] or "": entry["counts"] for entry in array.value_counts().to_pylist()}
