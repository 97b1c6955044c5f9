"""What commands that write or show text print."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import DataError, RecipeError
from tunesmith.core.seeds import check_seed

if TYPE_CHECKING:
    from tunesmith.api import Run

_STYLES = {"input": "dim", "learned": "bold green", "cut": "red strike"}
_MARKS = {"input": ("", ""), "learned": ("⟦", "⟧"), "cut": ("✂", "✂")}  # where there are no colours


def settings(options: Sequence[str]) -> dict[str, Any]:
    """Read key=value words.

    Args:
        options: for example "temperature=0.8".
    Returns:
        Values by key.
    Raises:
        RecipeError: a word without "=", or one that is no setting of task.decoding.
    """
    from tunesmith.recipe.lines import value_of

    found = {}
    for text in options:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise RecipeError(f"'{text}' is not a setting; write key=value, for example temperature=0.8.")
        if key in ("seed", "samples"):
            raise RecipeError(f"'{text}' is an option of the command, not of task.decoding: write --{key} {value}.")
        if key in ("self", "prompts", "messages"):
            raise RecipeError(f"'{text}' is no setting of task.decoding, as temperature=0.8 is.")
        found[key] = value_of(value)
    return found


def stream(pieces: Iterable[str]) -> None:
    """Print text as it comes.

    Args:
        pieces: of it.
    """
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


def texts(prompts: Sequence[str], written: Sequence[Sequence[str]]) -> str:
    """Put prompts and texts below each other.

    Args:
        prompts: that were asked.
        written: per prompt, its texts.
    Returns:
        Several lines.
    """
    blocks = []
    for prompt, answers in zip(prompts, written, strict=True):
        blocks += [f"> {prompt}", *(f"{answer}\n" for answer in answers)]
    return "\n".join(blocks).rstrip("\n")


def talk(run: Run, seed: int, decoding: dict[str, Any]) -> None:
    """Answer lines from standard input until an empty one.

    Args:
        run: that answers.
        seed: of sampling.
        decoding: settings.
    Raises:
        RecipeError: a seed or a setting that does not exist.
    """
    check_seed(seed)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # what is no text is refused in words, and the talk goes on
    messages: list[dict[str, str]] = []
    while True:
        print("you: ", end="", flush=True, file=sys.stderr)
        line = sys.stdin.readline().strip()
        if not line:
            return
        try:
            messages = _answered(run, [*messages, {"role": "user", "content": line}], seed, decoding)
        except DataError as error:
            print(f"error: {error}", file=sys.stderr)


def _answered(run: Run, messages: list[dict[str, str]], seed: int, decoding: dict[str, Any]) -> list[dict[str, str]]:
    """Print an answer as it comes; the oldest turns go where the conversation has outgrown the model."""
    pieces: list[str] = []
    kept = run.fitting(messages, **decoding)
    for piece in run.stream(kept, seed=seed + len(messages), **decoding):
        pieces.append(piece)
        print(piece, end="", flush=True)
    print()
    if len(kept) < len(messages):
        turns = (len(messages) - len(kept)) // 2
        print(f"(the conversation was too long; oldest turns left out: {turns})", file=sys.stderr)
    return [*kept, {"role": "assistant", "content": "".join(pieces).strip() or "..."}]


def inspected(found: dict[str, Any]) -> str:
    """Show rows as the model reads them, in colours on a terminal and with marks elsewhere.

    Args:
        found: by `inspect`.
    Returns:
        Several lines.
    """
    from rich.console import Console
    from rich.text import Text

    coloured = sys.stdout.isatty()
    lines = [Text("input, ").append("learned", _STYLES["learned"]).append(", ").append("cut", _STYLES["cut"])]
    if not coloured:
        lines = [Text(f"input, {_wrapped('learned', 'learned')}, {_wrapped('cut', 'cut')}")]
    for row in found["rows"]:
        cut = f", {row['tokens'] - row['kept']} cut" if row["tokens"] > row["kept"] else ""
        label = f", label {row['label']}" if row["label"] is not None else ""
        lines.append(Text(f"\n{row['where']}: {row['tokens']} tokens{cut}{label}", "bold"))
        lines.append(_row(row["pieces"], coloured))
    for warning in found["warnings"]:
        lines.append(Text(f"\nnote: {warning}"))
    text = io.StringIO()
    console = Console(file=text, force_terminal=coloured, no_color=not coloured, width=Console().width, highlight=False)
    for line in lines:
        console.print(line, soft_wrap=True)
    return text.getvalue().rstrip("\n")


def _row(pieces: Sequence[tuple[str, str]], coloured: bool) -> Any:
    from rich.text import Text

    if coloured:
        found = Text()
        for place, (text, kind) in enumerate(pieces):
            found.append(text, f"{_STYLES[kind]}{' underline' if place % 2 else ''}")
        return found
    runs: list[list[str]] = []
    for text, kind in pieces:
        if not runs or runs[-1][0] != kind:
            runs.append([kind, ""])
        runs[-1][1] += text
    return Text("".join(_wrapped(kind, text) for kind, text in runs))


def _wrapped(kind: str, text: str) -> str:
    before, after = _MARKS[kind]
    return f"{before}{text}{after}"


def prompted(found: dict[str, Any]) -> str:
    """Draw prompts that are filled in.

    Args:
        found: by `show_prompts`.
    Returns:
        Several lines.
    """
    blocks = []
    for row in found["rows"]:
        notes = [f"{row['tokens']} tokens of {found['limit']}", f"{row['demonstrations']} demonstrations"]
        notes += [f"{row['dropped']} demonstrations did not fit"] if row["dropped"] else []
        notes += [f"{row['lost_characters']} characters of the row were cut"] if row["lost_characters"] else []
        blocks.append(f"{row['where']} ({row['label']}): {', '.join(notes)}\n{row['text']}")
    labels = [f"{one['label']}: {', '.join(one['texts'])}" for one in found["labels"]]
    blocks += ["labels and what stands for them:\n" + "\n".join(f"  {line}" for line in labels)]
    lengths = [
        f"{name}: tokens median {facts['tokens']['median']} / p95 {facts['tokens']['p95']} / longest "
        f"{facts['tokens']['longest']}, {facts['truncated']} rows cut"
        for name, facts in found["splits"].items()
    ]
    return "\n\n".join([*blocks, "\n".join([*lengths, *(f"note: {said}" for said in found["warnings"])])])
