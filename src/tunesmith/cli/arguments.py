"""Arguments and options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Folder = Annotated[str, typer.Argument(help="Run folder that `tunesmith train` left.", metavar="RUN")]
Data = Annotated[str, typer.Argument(help="Data file or folder.", metavar="DATA")]
Keys = Annotated[list[str] | None, typer.Argument(help="key=value, for example data.label=intent or data.test=t.csv.")]
Model = Annotated[str | None, typer.Option(help="Name or folder; minilm for texts with labels.")]
Memory = Annotated[str | None, typer.Option(help="Most memory that a run may take (8GB).")]
Output = Annotated[str, typer.Option(help="New folder.")]
