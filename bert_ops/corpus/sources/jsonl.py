"""JSON Lines: an object a line; and the parsing of a JSON row, which :mod:`bert_ops.corpus.sources.json` shares."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from bert_ops.corpus.records import Rejection, Row
from bert_ops.corpus.sources.files import SourceFile, read_files
from bert_ops.corpus.sources.json_scan import Depth
from bert_ops.corpus.sources.lines import Refused, is_blank, lines
from bert_ops.corpus.sources.reading import FileFacts, Reading
from bert_ops.corpus.sources.rows import row_maker


def read_jsonl(reading: Reading) -> Iterator[Row | Rejection]:
    """Yield the rows of JSON Lines files; the first row must have every field, a later one may lack it."""
    make = row_maker(reading)

    def read(reading: Reading, file: SourceFile, facts: FileFacts) -> Iterator[Row | Rejection]:
        depth = reading.params.max_json_depth
        for number, line in lines(reading, file, facts):
            location = f"{file.shown}:{number}"
            if isinstance(line, Refused):
                yield reading.reject(location, *line)
            elif not is_blank(line):
                value = parse_object(line, max_depth=depth)
                if isinstance(value, Refused):
                    yield reading.reject(location, *value, line)
                else:
                    yield make(location, value)

    return read_files(reading, read)


def parse_object(text: str, *, max_depth: int) -> dict[str, Any] | Refused:
    """Parse a JSON object, or say why it cannot be used; memory and time are linear in the text."""
    nested = text.count("{") + text.count("[") > max_depth and depth_of(text) > max_depth
    if nested:
        return Refused("deep_json", f"is nested deeper than {max_depth}, as ingest.reading.max_json_depth allows")
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        return Refused("bad_json", f"is not valid JSON: {error.msg} at column {error.colno}")
    except _TwiceError as error:
        return Refused("duplicate_key", f"has the key {error.args[0]!r:.80} twice in one object")
    except (RecursionError, ValueError) as error:
        return Refused("bad_json", f"is not usable JSON: {error}")
    if not isinstance(value, dict):
        return Refused("not_an_object", f"holds a JSON {type(value).__name__}, not an object")
    return value


class _TwiceError(Exception):
    """A key stands twice in an object."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _TwiceError(key)
            seen.add(key)
    return value


#: Made once: json.loads would make one for each row.
_DECODER = json.JSONDecoder(object_pairs_hook=_unique)


def depth_of(text: str) -> int:
    """Deepest nesting of brackets outside of strings."""
    depth = Depth()
    depth.feed(text)
    return depth.deepest
