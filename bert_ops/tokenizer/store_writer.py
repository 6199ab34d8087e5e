"""Writing a token store: blocks of sentences go to shards as they come; memory holds one shard's word starts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from bert_ops.io import dump_json, file_sha256, write_text
from bert_ops.tokenizer.store import FORMAT, NPY_HEADER, Ids, dtype_for, manifest_checksum, starts_file
from bert_ops.tokenizer.wordpiece import SpecialIds


class ArrayFile:
    """A one-dimensional ``.npy`` file that grows; its bytes are those that ``numpy.save`` writes."""

    def __init__(self, path: Path, dtype: np.dtype[Any]) -> None:
        self.path, self.dtype, self.length = path, dtype, 0
        self.handle = path.open("wb")
        self._write_header()

    def _write_header(self) -> None:
        shape = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": (self.length,)}
        np.lib.format.write_array_header_1_0(self.handle, shape)
        assert self.handle.tell() == NPY_HEADER

    def append(self, values: NDArray[Any]) -> None:
        """Append values."""
        self.handle.write(values.astype(self.dtype).tobytes())
        self.length += len(values)

    def close(self) -> str:
        """Write the true length and return the file's sha256."""
        self.handle.seek(0)
        self._write_header()
        self.handle.close()
        return file_sha256(self.path)


class SplitWriter:
    """Writes one split, block by block.

    Args:
        folder: the store.
        split: its name.
        dtype: of the ids.
        shard_tokens: tokens after which a shard ends; a longer sentence makes a shard by itself.

    """

    def __init__(self, folder: Path, split: str, *, dtype: np.dtype[Any], shard_tokens: int) -> None:
        self.folder, self.split, self.dtype, self.shard_tokens = folder, split, dtype, shard_tokens
        self.shards: list[dict[str, Any]] = []
        self.tokens = self.sentences = self.documents = 0
        self.sentence_ends = ArrayFile(folder / f"{split}.sentences.npy", np.dtype("<i8"))
        self.document_ends = ArrayFile(folder / f"{split}.documents.npy", np.dtype("<i8"))
        self.repeats = ArrayFile(folder / f"{split}.repeats.npy", np.dtype("u1"))
        self.all_once = True
        self.sentence_ends.append(np.zeros(1, np.int64))
        self._shard: BinaryIO | None = None
        self._shard_size = 0
        self._starts: list[NDArray[np.bool_]] = []
        self._digest = hashlib.sha256()

    def add(self, sentences: Sequence[Ids], *, repeats: int = 1) -> None:
        """Append a document of which every token begins a word; empty sentences are left out."""
        lengths = np.array([len(ids) for ids in sentences if len(ids)], np.int64)
        if not len(lengths):
            return
        ids = np.concatenate([ids for ids in sentences if len(ids)])
        first = np.arange(len(lengths)) == 0
        self.extend(ids, np.ones(len(ids), np.bool_), lengths, first, repeats=np.array([repeats], np.uint8))

    def extend(
        self,
        ids: Ids,
        word_starts: NDArray[np.bool_],
        lengths: NDArray[np.int64],
        begins_document: NDArray[np.bool_],
        *,
        repeats: NDArray[np.uint8],
    ) -> None:
        """Append sentences.

        Args:
            ids: (T,), the tokens of all of them.
            word_starts: (T,), whether a token begins a word.
            lengths: (S,), tokens of each sentence, none of them 0.
            begins_document: (S,), whether a sentence is the first of its document.
            repeats: passes over each document that begins here.

        """
        first_sentences = np.flatnonzero(begins_document) + self.sentences
        ends = np.concatenate([[0], np.cumsum(lengths)])
        self.sentence_ends.append(self.tokens + ends[1:])
        self.document_ends.append(first_sentences)
        self.repeats.append(repeats)
        self.all_once &= bool((repeats == 1).all())
        self.tokens += int(ends[-1])
        self.sentences += len(lengths)
        self.documents += len(first_sentences)
        done = 0
        while done < len(lengths):
            room = self.shard_tokens - self._shard_size
            stop = int(np.searchsorted(ends, ends[done] + room, side="right")) - 1
            if stop <= done and self._shard_size:
                self._end_shard()
                continue
            stop = max(stop, done + 1)
            self._write(ids[ends[done] : ends[stop]], word_starts[ends[done] : ends[stop]])
            done = stop

    def _write(self, ids: Ids, word_starts: NDArray[np.bool_]) -> None:
        if self._shard is None:
            self._shard = (self.folder / f"{self.split}-{len(self.shards):05d}.bin").open("wb")
        data = ids.astype(self.dtype).tobytes()
        self._digest.update(data)
        self._shard.write(data)
        self._starts.append(word_starts)
        self._shard_size += len(ids)

    def _end_shard(self) -> None:
        assert self._shard is not None
        self._shard.close()
        name = Path(self._shard.name).name
        packed = np.packbits(np.concatenate(self._starts), bitorder="little").tobytes()
        (self.folder / starts_file(name)).write_bytes(packed)
        self.shards.append(
            {
                "file": name,
                "tokens": self._shard_size,
                "sha256": self._digest.hexdigest(),
                "word_starts_sha256": hashlib.sha256(packed).hexdigest(),
            }
        )
        self._shard, self._shard_size, self._starts, self._digest = None, 0, [], hashlib.sha256()

    def close(self) -> dict[str, Any]:
        """Write what is left and return the manifest's entry for this split."""
        if self._shard is not None:
            self._end_shard()
        self.document_ends.append(np.array([self.sentences]))
        checksums = {
            "sentences": self.sentence_ends.close(),
            "documents": self.document_ends.close(),
            "repeats": self.repeats.close(),
        }
        if self.all_once:
            self.repeats.path.unlink()
            del checksums["repeats"]
        return {
            "tokens": self.tokens,
            "sentences": self.sentences,
            "documents": self.documents,
            "shards": self.shards,
            "checksums": checksums,
        }


def write_manifest(
    folder: Path, *, vocab_size: int, vocab_sha256: str, special_ids: SpecialIds, splits: dict[str, dict[str, Any]]
) -> None:
    """Write ``manifest.json``, last, so that a store without it is known to be unfinished."""
    manifest = {
        "format": FORMAT,
        "dtype": dtype_for(vocab_size).str,
        "vocab_size": vocab_size,
        "vocab_sha256": vocab_sha256,
        "special_ids": special_ids._asdict(),
        "splits": splits,
    }
    write_text(folder / "manifest.json", dump_json(manifest | {"checksum": manifest_checksum(manifest)}))
