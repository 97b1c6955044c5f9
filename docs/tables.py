"""Write docs/components.md from the registry: `make docs`. A test checks that the page is current."""

from __future__ import annotations

from pathlib import Path

from tunesmith.cli.show import component_rows
from tunesmith.core.registry import KINDS

PAGE = Path(__file__).parent / "components.md"


def page() -> str:
    """Return the page: one table per kind of component."""
    parts = ["# Components\n\nWritten by `make docs` from the registry; `tunesmith list KIND` prints the same.\n"]
    for kind in KINDS:
        parts.append(f"\n## {kind}\n\n| name | what | settings | facts | source |\n|---|---|---|---|---|\n")
        for row in component_rows(kind):
            settings = "; ".join(f"`{item['name']}={item['default']}` {item['help']}" for item in row["settings"])
            summary = row["summary"].replace("|", "\\|")
            parts.append(
                f"| `{row['name']}` | {summary} | {settings.replace('|', chr(92) + '|')} | "
                f"{row['facts']} | {row['paper']} |\n"
            )
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"written: {PAGE}")
