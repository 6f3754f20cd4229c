"""Summaries of docstrings for the API reference (an extension of Griffe).

The lists of classes and functions show the first line of a docstring. Where the first sentence goes
on in the next line it would be cut there, so that this puts it on one.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

SENTENCE = re.compile(r"(?<!e\.g)(?<!i\.e)(?<!al)[.!?]\)?(?=\s+[A-Z`\"'(])")


class Summaries(griffe.Extension):
    """Puts the first sentence of each docstring on a line of its own."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = summarized(obj.docstring.value)


def summarized(text: str) -> str:
    """The text with its first sentence in the first line; the paragraph reads the same.

    >>> summarized("One sentence\\nin two lines. Another.\\n\\nMore.")
    'One sentence in two lines.\\nAnother.\\n\\nMore.'
    >>> summarized("Short.\\nTwo.")
    'Short.\\nTwo.'
    """
    paragraph, gap, rest = text.partition("\n\n")
    lines = paragraph.splitlines()
    if len(lines) < 2 or any(line.startswith((" ", "-", "*", "`" * 3, ">>>")) for line in lines):
        return text
    if lines[0].endswith((".", ":")):
        return text
    joined = " ".join(lines)
    end = SENTENCE.search(joined)
    if end is None:
        return joined + gap + rest
    return joined[: end.end()] + "\n" + joined[end.end() :].lstrip() + gap + rest
