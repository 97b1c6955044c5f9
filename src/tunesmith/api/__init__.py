"""The public verbs: the only door for the command line, the server and the studio."""

from __future__ import annotations

from tunesmith.api.deltas import convert, merge, merge_deltas, route, unmerge
from tunesmith.api.searching import (
    exploit_patterns,
    learning_curve,
    loop,
    rank_prompts,
    search_prompts,
    search_settings,
)
from tunesmith.api.tuning import episodes, inspect, inspect_data, lr_range, open_run, show_prompts, train
from tunesmith.evaluation.comparison import Comparison
from tunesmith.methods.attaching import attach
from tunesmith.models.delta import Delta
from tunesmith.models.tokens import add_tokens
from tunesmith.runs.answering import Prediction
from tunesmith.runs.contrast import compare
from tunesmith.runs.episode_run import EpisodeRun
from tunesmith.runs.mixing import Mix, mix
from tunesmith.runs.run import Run
from tunesmith.runs.words import prompt_words
from tunesmith.search.advisor import auto, plan

__all__ = [
    "Comparison",
    "Delta",
    "EpisodeRun",
    "Mix",
    "Prediction",
    "Run",
    "add_tokens",
    "attach",
    "auto",
    "compare",
    "convert",
    "episodes",
    "exploit_patterns",
    "inspect",
    "inspect_data",
    "learning_curve",
    "loop",
    "lr_range",
    "merge",
    "merge_deltas",
    "mix",
    "open_run",
    "plan",
    "prompt_words",
    "rank_prompts",
    "route",
    "search_prompts",
    "search_settings",
    "show_prompts",
    "train",
    "unmerge",
]
