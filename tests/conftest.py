"""What several tests share: a tiny model on disk, tiny data, and places of real data."""

from __future__ import annotations

import contextlib
import csv
import gc
import io
import json
import os
import subprocess
import sys
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from tunesmith.cli import main
from tunesmith.evaluation import calibration_page, comparison_plots, episode_page, plots

TEXTS = {
    "greeting": ["hello there friend", "good morning to you", "hi how are you", "hey nice to meet you"],
    "parting": ["goodbye my friend", "see you tomorrow then", "farewell and good night", "bye bye for now"],
    "thanks": ["thank you so much", "many thanks to you", "thanks a lot friend", "i am so thankful now"],
}


def pytest_collection_finish() -> None:
    """What is imported by now stays; searches for garbage need not go through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tiny models gain nothing from a second thread; the suite runs in several processes instead."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> None:
    """A run waits for the disk dozens of times, so that it outlives the machine; no run of a test has to."""
    os.fsync = lambda handle: None  # type: ignore[assignment]


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What runs keep for later ones stays out of the user's cache folder."""
    os.environ["TUNESMITH_CACHE"] = str(tmp_path_factory.mktemp("cache"))


class Blank:
    """Stands for a picture and all that is in it: takes every call and draws nothing."""

    def __getattr__(self, name: str) -> Blank:
        return self

    def __call__(self, *given: Any, **named: Any) -> Blank:
        return self

    def __getitem__(self, key: Any) -> Blank:
        return self

    def __iter__(self) -> Iterator[Blank]:
        return iter(())


BLANKS = {
    (plots, "canvas"): lambda width, height, panels=1: (Blank(), [Blank()] * panels),
    (plots, "_svg"): lambda figure: "<svg></svg>",
    (plots, "_png"): lambda figure: b"",
    (comparison_plots, "canvas"): lambda width, height, panels=1: (Blank(), [Blank()] * panels),
    (episode_page, "canvas"): lambda width, height, panels=1: (Blank(), [Blank()] * panels),
    (calibration_page, "canvas"): lambda width, height, panels=1: (Blank(), [Blank()] * panels),
}
DRAWINGS = {place: getattr(*place) for place in BLANKS}


@pytest.fixture(scope="session", autouse=True)
def _no_pictures() -> None:
    """Reports leave out their pictures, half of a tiny run's time; see `pictures`."""
    for (module, name), blank in BLANKS.items():
        setattr(module, name, blank)


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports with their pictures, for tests that look at them or at odd content."""
    for (module, name), drawing in DRAWINGS.items():
        monkeypatch.setattr(module, name, drawing)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of two layers with its own tokenizer, saved as a model folder."""
    folder = tmp_path_factory.mktemp("tiny-bert")
    return save_tiny_bert(folder, seed=0)


def save_tiny_bert(folder: Path, seed: int) -> Path:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = sorted({word for texts in TEXTS.values() for text in texts for word in text.split()})
    letters = sorted({letter for word in words for letter in word} | set("abcde"))
    # Written out, for a trained word-piece vocabulary differs between processes.
    pieces = dict.fromkeys([*special, *letters, *(f"##{letter}" for letter in letters), *words])
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=64,
    )  # fmt: skip
    fast.save_pretrained(folder)
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=48, max_position_embeddings=64,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two layers with a byte-level tokenizer of its own, saved as a model folder."""
    return save_tiny_writer(tmp_path_factory.mktemp("tiny-llama"))


@pytest.fixture(scope="session", params=["bart", "t5"])
def tiny_pair(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A random encoder-decoder of two layers each, saved as a model folder."""
    return save_tiny_pair(tmp_path_factory.mktemp(f"tiny-{request.param}"), request.param)


def save_tiny_pair(folder: Path, kind: str) -> Path:
    special = ["<pad>", "</s>", "<s>", "<unk>"]
    tokenizer = byte_level(special)
    sides = "<s> $A </s>" if kind == "bart" else "$A </s>"
    tokenizer.post_processor = processors.TemplateProcessing(single=sides, special_tokens=[("</s>", 1), ("<s>", 2)])
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=64,
        **({"bos_token": "<s>"} if kind == "bart" else {}),
    )  # fmt: skip
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    shared = {"vocab_size": len(fast), "d_model": 32, "pad_token_id": 0, "eos_token_id": 1}
    if kind == "bart":
        config: Any = transformers.BartConfig(
            **shared, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
            encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=64, bos_token_id=2,
            decoder_start_token_id=1, forced_eos_token_id=None,
        )  # fmt: skip
    else:
        config = transformers.T5Config(**shared, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0)
    transformers.AutoModelForSeq2SeqLM.from_config(config).save_pretrained(folder)
    return folder


def byte_level(special: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=special,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([text for texts in TEXTS.values() for text in texts], trainer)
    return tokenizer


def save_tiny_writer(folder: Path, template: str | None = None) -> Path:
    tokenizer = byte_level(["<s>", "</s>", "<|im_start|>", "<|im_end|>"])
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", model_max_length=256
    )
    fast.chat_template = template
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(fast), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=48, max_position_embeddings=256, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_vision(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random ViT of two layers that reads grey images of 8 x 8, saved without an image processor."""
    folder = tmp_path_factory.mktemp("tiny-vit")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        image_size=8, patch_size=4, num_channels=1, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=48,
    )  # fmt: skip
    transformers.ViTModel(config).save_pretrained(folder)
    return folder


def save_drawings(path: Path, classes: int = 8, each: int = 6, size: int = 8, group: str = "drawings") -> Path:
    """A zip archive of small grey images: every class is a random pattern, drawn anew with noise."""
    draw = np.random.default_rng(zlib.crc32(group.encode()))
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(classes):
            pattern = draw.integers(0, 2, (size, size)) * 200
            for copy in range(each):
                noisy = np.clip(pattern + draw.integers(0, 50, (size, size)), 0, 255).astype(np.uint8)
                file = io.BytesIO()
                Image.fromarray(noisy).save(file, "PNG")
                archive.writestr(f"{group}/class{number}/{copy}.png", file.getvalue())
    return path


def run_command(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`tunesmith WORDS` as a user meets it, in this process, for a new one spends seconds on imports."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.ExitStack() as around:
        patch = around.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(sys, "argv", ["tunesmith", *words])
        patch.setattr(main, "take_the_process", lambda: None)  # the process is pytest's
        around.enter_context(warnings.catch_warnings())
        warnings.simplefilter("default")
        around.enter_context(contextlib.chdir(cwd or "."))
        around.enter_context(contextlib.redirect_stdout(out))
        around.enter_context(contextlib.redirect_stderr(err))
        try:
            main.run()
        except SystemExit as leaving:
            code = int(leaving.code or 0)
    return subprocess.CompletedProcess(["tunesmith", *words], code, out.getvalue(), err.getvalue())


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_csv(path: Path, rows: list[tuple[str, str]], header: tuple[str, str] = ("text", "label")) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


@pytest.fixture
def data_folder(tmp_path: Path) -> Path:
    """train.csv and test.csv of three labels."""
    train = [(f"{text} {extra}", label) for label, texts in TEXTS.items() for text in texts for extra in "abcde"]
    test = [(f"well {text}", label) for label, texts in TEXTS.items() for text in texts]
    write_csv(tmp_path / "train.csv", train)
    write_csv(tmp_path / "test.csv", test)
    return tmp_path


@pytest.fixture
def recipe(data_folder: Path, tiny_folder: Path) -> dict[str, object]:
    """A recipe that trains in less than a second; without baselines, which a test of them asks for."""
    return {
        "model": str(tiny_folder),
        "data": {"train": str(data_folder / "train.csv"), "test": str(data_folder / "test.csv"), "validation": 0.2},
        "method": {"name": "lora", "rank": 4},
        "training": {"epochs": 2, "batch_size": 8, "learning_rate": 5e-3},
        "evaluation": {"resamples": 100, "baselines": False},
        "output": str(data_folder / "run"),
    }


def real(variable: str) -> Path:
    """The folder a variable names, or skip the test."""
    place = os.environ.get(variable)
    if not place or not Path(place).is_dir():
        pytest.skip(f"{variable} is not set")
    return Path(place)
