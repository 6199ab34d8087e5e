"""Walking over JSON text without building it: strings and brackets, a chunk at a time."""

from __future__ import annotations

import re

_MARK = re.compile(r'"|[{\[]++|[}\]]++')
_INSIDE = re.compile(r'(?:[^"\\]++|\\.)*+', re.DOTALL)


class Depth:
    """Follows the nesting of JSON text that comes in chunks.

    Attributes:
        depth: brackets that are open.
        deepest: the most that were.
        in_string: whether the text so far ends within a string.

    """

    __slots__ = ("_escaped", "deepest", "depth", "in_string")

    def __init__(self) -> None:
        self.depth = self.deepest = 0
        self.in_string = self._escaped = False

    def feed(self, text: str, start: int = 0) -> int | None:
        """Walk on; returns the place after the bracket or quotation mark that ends the value, or None."""
        place, end = start, len(text)
        while place < end:
            if self._escaped:
                self._escaped = False
                place += 1
                continue
            if self.in_string:
                match = _INSIDE.match(text, place)
                place = match.end() if match else place
                if place == end:
                    return None
                self._escaped = text[place] == "\\"
                self.in_string = self._escaped
                place += 1
                if not self.in_string and not self.depth:
                    return place
                continue
            found = _MARK.search(text, place)
            if found is None:
                return None
            place = found.end()
            mark = text[found.start()]
            if mark == '"':
                self.in_string = True
            elif mark in "{[":
                self.depth += place - found.start()
                self.deepest = max(self.deepest, self.depth)
            elif self.depth <= place - found.start():
                place, self.depth = found.start() + max(self.depth, 1), 0
                return place
            else:
                self.depth -= place - found.start()
        return None
