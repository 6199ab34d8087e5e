"""The token store: sentences as token ids in memory-mapped shards, with the boundaries of sentences and documents.

Files, for each split that has sentences::

    manifest.json            counts, dtype, vocabulary size and hash, sha256 and tokens of each shard
    train-00000.bin          ids of whole sentences, one after the other, without special tokens (uint16 or uint32)
    train.sentences.npy      int64, S + 1: where sentence s begins, counted over all shards of the split
    train.documents.npy      int64, N + 1: the first sentence of document n

A sentence never crosses a shard, so reading one is a slice of a memory map: no copy and no decoding.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bert_ops.errors import ArtifactError
from bert_ops.io import damaged, file_sha256, missing, read_json, rerun, write_json

FORMAT = "bert-ops-tokens-1"
SPLITS = ("train", "validation", "test")
Ids = NDArray[np.unsignedinteger[Any]]


def dtype_for(vocab_size: int) -> np.dtype[Any]:
    """Smallest of uint16 and uint32 that holds every id; little endian, so that files mean the same everywhere."""
    return np.dtype("<u2") if vocab_size <= 2**16 else np.dtype("<u4")


class SplitWriter:
    """Writes one split, document by document; memory holds one shard and the boundaries."""

    def __init__(self, folder: Path, split: str, *, dtype: np.dtype[Any], shard_tokens: int) -> None:
        self.folder, self.split, self.dtype, self.shard_tokens = folder, split, dtype, shard_tokens
        self.pending: list[Ids] = []
        self.pending_tokens = 0
        self.shards: list[dict[str, Any]] = []
        self.sentence_ends: list[int] = [0]
        self.document_ends: list[int] = [0]

    def add(self, sentences: list[Ids]) -> None:
        """Append a document; empty sentences are kept out, a document without tokens leaves no trace."""
        kept = [ids for ids in sentences if len(ids)]
        if not kept:
            return
        for ids in kept:
            if self.pending_tokens and self.pending_tokens + len(ids) > self.shard_tokens:
                self._flush()
            self.pending.append(ids)
            self.pending_tokens += len(ids)
            self.sentence_ends.append(self.sentence_ends[-1] + len(ids))
        self.document_ends.append(len(self.sentence_ends) - 1)

    def _flush(self) -> None:
        name = f"{self.split}-{len(self.shards):05d}.bin"
        path = self.folder / name
        np.concatenate(self.pending).astype(self.dtype).tofile(path)
        self.shards.append({"file": name, "tokens": self.pending_tokens, "sha256": file_sha256(path)})
        self.pending, self.pending_tokens = [], 0

    def close(self) -> dict[str, Any]:
        """Write what is left and return the manifest's entry for this split."""
        if self.pending:
            self._flush()
        np.save(self.folder / f"{self.split}.sentences.npy", np.asarray(self.sentence_ends, np.int64))
        np.save(self.folder / f"{self.split}.documents.npy", np.asarray(self.document_ends, np.int64))
        return {
            "tokens": self.sentence_ends[-1],
            "sentences": len(self.sentence_ends) - 1,
            "documents": len(self.document_ends) - 1,
            "shards": self.shards,
        }


def write_manifest(folder: Path, *, vocab_size: int, vocab_sha256: str, splits: dict[str, dict[str, Any]]) -> None:
    """Write ``manifest.json``, last, so that a store without it is known to be unfinished."""
    write_json(
        folder / "manifest.json",
        {
            "format": FORMAT,
            "dtype": dtype_for(vocab_size).str,
            "vocab_size": vocab_size,
            "vocab_sha256": vocab_sha256,
            "splits": splits,
        },
    )


@dataclass(frozen=True)
class SplitView:
    """Read access to one split; picklable and safe to share between processes."""

    folder: Path
    name: str
    entry: dict[str, Any]
    dtype: np.dtype[Any]
    sentence_ends: NDArray[np.int64]
    document_ends: NDArray[np.int64]
    shard_starts: list[int] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Tokens in the split."""
        return int(self.sentence_ends[-1])

    @property
    def sentences(self) -> int:
        """Sentences in the split."""
        return len(self.sentence_ends) - 1

    @property
    def documents(self) -> int:
        """Documents in the split."""
        return len(self.document_ends) - 1

    @cached_property
    def _shards(self) -> list[Ids]:
        return [np.memmap(self.folder / shard["file"], dtype=self.dtype, mode="r") for shard in self.entry["shards"]]

    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each sentence, (S,)."""
        return np.diff(self.sentence_ends)

    def sentence(self, index: int) -> Ids:
        """Ids of a sentence, a view into the memory map."""
        start, end = int(self.sentence_ends[index]), int(self.sentence_ends[index + 1])
        shard = bisect.bisect_right(self.shard_starts, start) - 1
        offset = self.shard_starts[shard]
        return self._shards[shard][start - offset : end - offset]

    def document(self, index: int) -> tuple[int, int]:
        """First sentence of a document, and the one after its last."""
        return int(self.document_ends[index]), int(self.document_ends[index + 1])

    def shard_ids(self) -> Iterator[Ids]:
        """All ids, a shard at a time."""
        yield from self._shards


@dataclass(frozen=True)
class TokenStore:
    """A store opened for reading."""

    folder: Path
    manifest: dict[str, Any]
    views: dict[str, SplitView]

    @property
    def vocab_size(self) -> int:
        """Entries of the vocabulary that the ids refer to."""
        return int(self.manifest["vocab_size"])

    def __getitem__(self, split: str) -> SplitView:
        """Return a split.

        Raises:
            ArtifactError: the store holds no sentence of that split.

        """
        if split not in self.views:
            raise ArtifactError(
                f"{self.folder} holds no {split} split (it has {', '.join(self.views)})", remedy=rerun("tokenize")
            )
        return self.views[split]

    @classmethod
    def open(cls, folder: Path, *, verify: bool = False) -> TokenStore:
        """Open a store; sizes are always checked, contents only with ``verify`` (it reads every byte).

        Raises:
            ArtifactError: a file is missing, truncated or (with ``verify``) changed.

        """
        manifest = read_json(folder / "manifest.json", made_by="tokenize")
        if manifest.get("format") != FORMAT:
            raise damaged(folder / "manifest.json", f"format is {manifest.get('format')!r}", made_by="tokenize")
        dtype = np.dtype(manifest["dtype"])
        views = {name: _open_split(folder, name, entry, dtype) for name, entry in manifest["splits"].items()}
        if verify:
            for entry in manifest["splits"].values():
                for shard in entry["shards"]:
                    if file_sha256(folder / shard["file"]) != shard["sha256"]:
                        raise damaged(folder / shard["file"], "its checksum differs", made_by="tokenize")
        return cls(folder=folder, manifest=manifest, views=views)


def _open_split(folder: Path, name: str, entry: dict[str, Any], dtype: np.dtype[Any]) -> SplitView:
    starts, total = [], 0
    for shard in entry["shards"]:
        path = folder / shard["file"]
        if not path.is_file():
            raise missing(path, made_by="tokenize")
        expected = shard["tokens"] * dtype.itemsize
        if path.stat().st_size != expected:
            raise damaged(path, f"{path.stat().st_size} bytes instead of {expected}", made_by="tokenize")
        starts.append(total)
        total += shard["tokens"]
    sentence_ends = _load_boundaries(folder / f"{name}.sentences.npy", count=entry["sentences"], last=total)
    document_ends = _load_boundaries(
        folder / f"{name}.documents.npy", count=entry["documents"], last=entry["sentences"]
    )
    return SplitView(folder, name, entry, dtype, sentence_ends, document_ends, starts)


def _load_boundaries(path: Path, *, count: int, last: int) -> NDArray[np.int64]:
    try:
        ends = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise missing(path, made_by="tokenize") from error
    except (ValueError, EOFError, OSError) as error:
        raise damaged(path, str(error), made_by="tokenize") from error
    if len(ends) != count + 1 or int(ends[-1]) != last:
        raise damaged(
            path, f"{len(ends) - 1} entries up to {ends[-1]} instead of {count} up to {last}", made_by="tokenize"
        )
    boundaries: NDArray[np.int64] = ends
    return boundaries
