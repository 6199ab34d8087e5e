"""The token store: sentences as token ids in memory-mapped shards, with the boundaries of sentences and documents.

Files, for each split that has sentences::

    manifest.json             counts, dtype, vocabulary size and hash, special ids, sha256 of every file
    train-00000.bin           ids of whole sentences, one after the other, without special tokens (uint16 or uint32)
    train-00000.starts.bin    one bit a token, 1 where it begins a word (numpy.packbits, bitorder "little")
    train.sentences.npy       int64, S + 1: where sentence s begins, counted over all shards of the split
    train.documents.npy       int64, N + 1: the first sentence of document n
    train.repeats.npy         uint8, N: passes over document n in an epoch; only if some are not 1

A sentence never crosses a shard, so reading one is a slice of a memory map: no copy and no decoding. Boundaries are
memory-mapped too, so that opening a store costs neither time nor memory, however large it is.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bert_ops.errors import ArtifactError
from bert_ops.io import damaged, dump_json, file_sha256, missing, read_json, rerun
from bert_ops.tokenizer.wordpiece import SpecialIds

FORMAT = "bert-ops-tokens-2"
SPLITS = ("train", "validation", "test")
Ids = NDArray[np.unsignedinteger[Any]]
Numbers = NDArray[np.int64]

#: Bytes before the values of a one-dimensional ``.npy`` file, as numpy pads it.
NPY_HEADER = 128


def dtype_for(vocab_size: int) -> np.dtype[Any]:
    """Smallest of uint16 and uint32 that holds every id; little endian, so that files mean the same everywhere."""
    return np.dtype("<u2") if vocab_size <= 2**16 else np.dtype("<u4")


def starts_file(shard: str) -> str:
    """Name of the file with the word starts of a shard."""
    return f"{shard.removesuffix('.bin')}.starts.bin"


@dataclass(frozen=True)
class SplitView:
    """Read access to one split; maps files when they are first read.

    Can be pickled (it opens its files anew) and used after a fork, by any number of processes at once.
    """

    folder: Path
    name: str
    entry: dict[str, Any]
    dtype: np.dtype[Any]
    special: SpecialIds

    def __reduce__(self) -> tuple[Any, ...]:
        return SplitView, (self.folder, self.name, self.entry, self.dtype, self.special)

    @property
    def tokens(self) -> int:
        """Tokens in the split."""
        return int(self.entry["tokens"])

    @property
    def sentences(self) -> int:
        """Sentences in the split."""
        return int(self.entry["sentences"])

    @property
    def documents(self) -> int:
        """Documents in the split."""
        return int(self.entry["documents"])

    @cached_property
    def sentence_ends(self) -> Numbers:
        """Where each sentence begins, and where the last ends, (S + 1,), a memory map."""
        return self._boundaries("sentences", count=self.sentences, last=self.tokens)

    @cached_property
    def document_ends(self) -> Numbers:
        """First sentence of each document, and the one after the last, (N + 1,), a memory map."""
        return self._boundaries("documents", count=self.documents, last=self.sentences)

    @cached_property
    def repeats(self) -> NDArray[np.uint8] | None:
        """Passes over each document in an epoch, (N,), a memory map; None if each is read once."""
        if "repeats" not in self.entry["checksums"]:
            return None
        repeats: NDArray[np.uint8] = _map_npy(self.folder / f"{self.name}.repeats.npy", np.dtype(np.uint8))
        return repeats

    @cached_property
    def shard_starts(self) -> Numbers:
        """First token of each shard, and the one after the last, (shards + 1,)."""
        return np.cumsum([0, *(shard["tokens"] for shard in self.entry["shards"])])

    @cached_property
    def _shards(self) -> list[Ids]:
        return [_map(self.folder / shard["file"], self.dtype) for shard in self.entry["shards"]]

    @cached_property
    def _start_bits(self) -> list[NDArray[np.uint8]]:
        return [_map(self.folder / starts_file(s["file"]), np.dtype(np.uint8)) for s in self.entry["shards"]]

    def lengths(self) -> Numbers:
        """Tokens of each sentence, (S,)."""
        return np.diff(self.sentence_ends)

    def sentence(self, index: int) -> Ids:
        """Ids of a sentence, a view into the memory map."""
        return self.span(int(self.sentence_ends[index]), int(self.sentence_ends[index + 1]))

    def document(self, index: int) -> tuple[int, int]:
        """First sentence of a document, and the one after its last."""
        return int(self.document_ends[index]), int(self.document_ends[index + 1])

    def span(self, start: int, stop: int) -> Ids:
        """Ids of the tokens from ``start`` to ``stop``, counted over all shards; copied only if it crosses shards."""
        parts = [self._shards[shard][first:last] for shard, first, last in self._pieces(start, stop)]
        return parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, self.dtype), *parts])

    def word_starts(self, start: int, stop: int) -> NDArray[np.bool_]:
        """Whether each token from ``start`` to ``stop`` begins a word, (stop - start,)."""
        parts = [np.zeros(0, np.uint8)]
        for shard, first, last in self._pieces(start, stop):
            packed = self._start_bits[shard][first // 8 : (last + 7) // 8]
            parts.append(np.unpackbits(packed, bitorder="little")[first % 8 : first % 8 + last - first])
        return np.concatenate(parts).view(np.bool_)

    def copy(self, starts: Numbers, counts: Numbers, *, word_starts: bool) -> tuple[Ids, NDArray[np.bool_] | None]:
        """Copy many spans, one after the other: ids (P,), and whether each begins a word; one gather a shard."""
        ids = np.empty(counts.sum(), self.dtype)
        begins = np.empty(len(ids), np.bool_) if word_starts else None
        for shard, inside, places in self._by_shard(starts, counts):
            ids[places] = self._shards[shard][inside]
            if begins is not None:
                begins[places] = self._start_bits[shard][inside >> 3] >> (inside & 7).astype(np.uint8) & 1
        return ids, begins

    def _by_shard(self, starts: Numbers, counts: Numbers) -> Iterator[tuple[int, Numbers, Numbers]]:
        """Shard, tokens within it, and their places among the tokens of all spans, for each shard that holds some."""
        places = np.cumsum(counts) - counts
        while True:
            shards = np.searchsorted(self.shard_starts, starts, side="right") - 1
            over = np.flatnonzero(counts > (room := self.shard_starts[shards + 1] - starts))
            if not len(over):
                break
            starts, places = (np.append(first, (first + room)[over]) for first in (starts, places))
            counts = np.append(np.minimum(counts, room), (counts - room)[over])
        for group in np.split(order := np.argsort(starts), np.flatnonzero(np.diff(shards[order])) + 1):
            shard, n = int(shards[group[0]]), counts[group]
            step, first = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n), self.shard_starts[shard]
            yield shard, step + np.repeat(starts[group] - first, n), step + np.repeat(places[group], n)

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Shard, and first and last token within it, of each part of a span."""
        if not 0 <= start <= stop <= self.tokens:
            raise IndexError(f"tokens {start} to {stop} of {self.tokens}")
        shard = int(np.searchsorted(self.shard_starts, start, side="right")) - 1
        while start < stop:
            begin, end = int(self.shard_starts[shard]), int(self.shard_starts[shard + 1])
            last = min(stop, end)
            yield shard, start - begin, last - begin
            start, shard = last, shard + 1

    def shard_ids(self) -> Iterator[Ids]:
        """All ids, a shard at a time."""
        yield from self._shards

    def files(self) -> Iterator[tuple[str, int, str]]:
        """Name, size in bytes and sha256 of each file of the split, as the manifest has them."""
        for shard in self.entry["shards"]:
            tokens = shard["tokens"]
            yield shard["file"], tokens * self.dtype.itemsize, shard["sha256"]
            yield starts_file(shard["file"]), (tokens + 7) // 8, shard["word_starts_sha256"]
        sizes = {"sentences": 8 * (self.sentences + 1), "documents": 8 * (self.documents + 1)}
        for kind, checksum in self.entry["checksums"].items():
            yield f"{self.name}.{kind}.npy", NPY_HEADER + sizes.get(kind, self.documents), checksum

    def _boundaries(self, kind: str, *, count: int, last: int) -> Numbers:
        path = self.folder / f"{self.name}.{kind}.npy"
        ends: Numbers = _map_npy(path, np.dtype(np.int64))
        if len(ends) != count + 1 or int(ends[-1]) != last:
            raise damaged(
                path, f"{len(ends) - 1} entries up to {ends[-1]} instead of {count} up to {last}", made_by="tokenize"
            )
        return ends


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

    @property
    def special(self) -> SpecialIds:
        """Ids of the tokens that frame and mask sequences."""
        return SpecialIds(**self.manifest["special_ids"])

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
            ArtifactError: a file is missing, truncated or (with ``verify``) changed, or of another format.

        """
        manifest = _read_manifest(folder / "manifest.json", verify=verify)
        try:
            dtype, special = np.dtype(manifest["dtype"]), SpecialIds(**manifest["special_ids"])
            views = {name: SplitView(folder, name, entry, dtype, special) for name, entry in manifest["splits"].items()}
            files = [file for view in views.values() for file in view.files()]
        except (KeyError, TypeError) as error:
            raise damaged(folder / "manifest.json", f"it lacks {error}", made_by="tokenize") from error
        for name, size, checksum in files:
            _check(folder / name, size=size, checksum=checksum if verify else None)
        return cls(folder=folder, manifest=manifest, views=views)


def manifest_checksum(manifest: dict[str, Any]) -> str:
    """SHA-256 of a manifest without its own checksum."""
    rest = {key: value for key, value in manifest.items() if key != "checksum"}
    return hashlib.sha256(dump_json(rest).encode()).hexdigest()


def _read_manifest(path: Path, *, verify: bool) -> dict[str, Any]:
    manifest: dict[str, Any] = read_json(path, made_by="tokenize")
    if not path.read_bytes().endswith(b"\n"):
        raise damaged(path, "its end is missing", made_by="tokenize")
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else manifest
        raise damaged(path, f"format is {found!r}, not {FORMAT!r}", made_by="tokenize")
    if verify and manifest_checksum(manifest) != manifest.get("checksum"):
        raise damaged(path, "its checksum differs", made_by="tokenize")
    return manifest


def _check(path: Path, *, size: int, checksum: str | None) -> None:
    try:
        found = path.stat().st_size
    except FileNotFoundError as error:
        raise missing(path, made_by="tokenize") from error
    if found != size:
        raise damaged(path, f"{found} bytes instead of {size}", made_by="tokenize")
    if checksum is not None and file_sha256(path) != checksum:
        raise damaged(path, "its checksum differs", made_by="tokenize")


def _map(path: Path, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Map a file of plain values; an order of magnitude quicker to set up than ``numpy.memmap``."""
    try:
        with path.open("rb") as handle:
            return np.frombuffer(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ), dtype)
    except FileNotFoundError as error:
        raise missing(path, made_by="tokenize") from error
    except (ValueError, OSError) as error:  # empty, or cut within a value
        raise damaged(path, str(error), made_by="tokenize") from error


def _map_npy(path: Path, dtype: np.dtype[Any]) -> NDArray[Any]:
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise missing(path, made_by="tokenize") from error
    except (ValueError, EOFError, OSError) as error:
        raise damaged(path, str(error), made_by="tokenize") from error
    if values.ndim != 1 or values.dtype != dtype or not len(values):
        raise damaged(path, f"holds {values.dtype} of shape {values.shape}", made_by="tokenize")
    # A plain array over the same map: numpy.memmap is slow to index.
    return np.asarray(values)
