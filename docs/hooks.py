"""What mkdocs does to a page before it is rendered: the changelog stands at the root."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """The text of CHANGELOG.md, whose links begin at the root, in place of docs/changelog.md."""
    if page.file.src_uri != "changelog.md":
        return markdown
    if page.edit_url:
        page.edit_url = page.edit_url.replace("docs/changelog.md", "CHANGELOG.md")
    text = (Path(__file__).parents[1] / "CHANGELOG.md").read_text(encoding="utf-8")
    return text.replace("](docs/", "](")
