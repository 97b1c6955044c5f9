"""One HTML page that opens offline: its frame, sections and tables."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

_STYLE = """
:root { color-scheme: light; --ink: #1f2933; --soft: #52606d; --line: #d9e2ec; --blue: #2563eb; }
* { box-sizing: border-box; }
body { font: 15px/1.55 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; color: var(--ink); margin: 0;
  background: #f5f7fa; }
main { max-width: 980px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 0 0 12px; }
p { margin: 0 0 10px; } .soft { color: var(--soft); }
section { background: white; border: 1px solid var(--line); border-radius: 10px; padding: 22px 24px; margin-top: 18px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(160px, 1fr)); gap: 12px; margin-top: 18px; }
.card { background: white; border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; }
.card b { display: block; font-size: 23px; } .card span { color: var(--soft); font-size: 13px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: 6px 10px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.t { white-space: pre-wrap; min-width: 160px; max-width: 320px; overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 600; } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
tr.ours td { font-weight: 600; color: var(--blue); }
.warn { border-left: 4px solid #ea7317; padding: 4px 12px; margin: 0 0 8px; background: #fff7ed; }
.scroll { overflow-x: auto; } svg { max-width: 100%; height: auto; }
pre { background: #f5f7fa; border: 1px solid var(--line); border-radius: 8px; padding: 14px; overflow-x: auto;
  font-size: 13px; }
details summary { cursor: pointer; color: var(--soft); }
"""

OPENINGS = "<!--openings--><!--/openings-->"  # place in a report for what is known only later


def put_openings(written: str, said: str) -> str:
    """Put a warning about looks at the test rows into a report that was written before.

    Args:
        written: the report's HTML.
        said: a sentence; empty for none.
    Returns:
        The HTML with the sentence in its place; unchanged where it has no such place.
    """
    shown = f"<p class=warn>{safe(said)}</p>" if said else ""
    return re.sub("<!--openings-->.*?<!--/openings-->", lambda _: f"<!--openings-->{shown}<!--/openings-->", written)


def page(title: str, sections: Sequence[str]) -> str:
    """Write a page.

    Args:
        title: of it.
        sections: HTML.
    Returns:
        HTML without any outside reference.
    """
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>{safe(title)}</title><style>{_STYLE}</style></head>"
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )


def safe(value: object) -> str:
    """Write a value so that nothing in it is read as HTML.

    Args:
        value: any.
    Returns:
        HTML.
    """
    return html.escape(str(value))


def section(title: str, body: str) -> str:
    """Write a section; nothing where it would be empty.

    Args:
        title: of it.
        body: HTML.
    Returns:
        HTML.
    """
    return f"<section><h2>{safe(title)}</h2>{body}</section>" if body else ""


def table(heads: Sequence[str], rows: Sequence[str]) -> str:
    """Write a table whose first column is text and whose others are numbers.

    Args:
        heads: of the columns.
        rows: HTML of the rows.
    Returns:
        HTML.
    """
    first, *others = heads
    head = f"<th>{safe(first)}</th>" + "".join(f"<th class=n>{safe(name)}</th>" for name in others)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def texts(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table of texts, each cut to 600 characters.

    Args:
        heads: of the columns.
        rows: cells, plain texts.
    Returns:
        HTML.
    """
    head = "".join(f"<th>{safe(name)}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td class=t>{safe(cell[:600])}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def pairs(facts: dict[str, str]) -> str:
    """Write names and values.

    Args:
        facts: value by name.
    Returns:
        HTML.
    """
    rows = "".join(f"<tr><td>{safe(key)}</td><td>{safe(value)}</td></tr>" for key, value in facts.items())
    return f"<table>{rows}</table>"
