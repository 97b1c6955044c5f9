"""Names of persons: words from tokens, names from words, long texts in windows, and models that mark none."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from tunesmith.core.errors import CheckpointError, CompatibilityError, RecipeError, SecurityError, TunesmithError
from tunesmith.models import tagging
from tunesmith.models.backbone import length_sorted
from tunesmith.models.tagging import open_tagger

FIRST, INNER = ("Ann", "Bob", "Zoë", "王", "##na"), ("Lee", "Smith", "小", "明", "-", "##ley")
OTHERS = (
    "hello",
    "and",
    "met",
    "the",
    "wa",
    "##l",
    "##king",
    "x",
    ".",
    ",",
    "Ann1",
    "<",
    ">",
    "MAIL",
    "_",
    "1",
    "@",
    "a",
)
PLAIN = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def save_tagger(folder: Path, labels: tuple[str, ...] = PLAIN, places: int = 64) -> Path:
    """A BERT whose layers pass a token's own vector on: FIRST get the second label, INNER the third, OTHERS none."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words = dict.fromkeys([*special, *FIRST, *INNER, *OTHERS])
    tokenizer = Tokenizer(models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        model_max_length=512,
    ).save_pretrained(folder)  # fmt: skip
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=places, id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
    )  # fmt: skip
    model = transformers.BertForTokenClassification(config)
    kinds = [1 if word in FIRST else 2 if word in INNER else 0 for word in words]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for module in model.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.weight.fill_(1.0)
        model.bert.embeddings.word_embeddings.weight[torch.arange(len(words)), torch.tensor(kinds)] = 5.0
        model.classifier.weight[: min(3, len(labels))] = torch.eye(8)[: min(3, len(labels))]
    model.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def _nothing_kept() -> None:
    open_tagger.cache_clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tagger(tmp_path / "tagger")


def found(folder: Path, *texts: str) -> list[list[str]]:
    return [
        [text[start:end] for start, end in spans]
        for text, spans in zip(texts, open_tagger(str(folder)).find(texts), strict=True)
    ]


def test_names_are_words_from_their_first_letter_to_their_last(folder: Path) -> None:
    assert found(
        folder, "hello Ann Lee, and Bob", "", "x", "Ann-Lee met Ann Bob", "Annley wa Annlking", "walking walna",
        "王小明met王明", "Ann\nLee", "Zoë  Smith.", "\u200b", "   ",
    ) == [
        ["Ann Lee", "Bob"], [], [], ["Ann-Lee", "Ann", "Bob"], ["Annley", "Annlking"], [], ["王小明", "王明"],
        ["Ann", "Lee"], ["Zoë  Smith"], [], [],
    ]  # fmt: skip


@pytest.mark.parametrize("labels", [
    ("O", "PER", "LOC"), ("O", "B-PERSON", "I-PERSON"), ("O", "B-person", "I-person"), ("O", "S-PER", "E-PER"),
    ("O", "I-PER", "I-PER"),
])  # fmt: skip
def test_labels_are_read_from_the_model(labels: tuple[str, ...], tmp_path: Path) -> None:
    wanted = [["Ann"], ["Bob"]] if labels[2] == "LOC" else [["Ann Lee"], ["Bob"]]
    assert found(save_tagger(tmp_path / "tagger", labels), "hello Ann Lee", "Bob and") == wanted


def test_names_without_a_letter_are_one_where_nothing_stands_between(tmp_path: Path) -> None:
    folder = save_tagger(tmp_path / "tagger", ("O", "PER", "PERSON"))
    assert found(folder, "Ann Lee and Bob, Ann") == [["Ann Lee", "Bob", "Ann"]]


def test_long_texts_go_through_in_windows(tmp_path: Path) -> None:
    folder = save_tagger(tmp_path / "tagger", places=10)
    assert open_tagger(str(folder)).window == 10
    for before in range(24):
        text = "hello " * before + "Ann Lee and " + "x " * 30 + "Bob"
        assert found(folder, text, "Ann") == [["Ann Lee", "Bob"], ["Ann"]]


def test_the_window_counts_in_which_a_token_lies_farther_from_a_cut() -> None:
    words = [(2 * number, 2 * number + 1) for number in range(8)]
    pieces: dict[Any, Any] = {}
    tagging._keep_inner(tagging._Window(0, [], [None, *words[:5], None], True, False), [9, 1, 1, 1, 1, 1, 9], pieces)
    tagging._keep_inner(tagging._Window(0, [], [None, *words[3:], None], False, True), [9, 2, 2, 2, 2, 2, 9], pieces)
    assert [pieces[word][1] for word in words] == [1, 1, 1, 1, 2, 2, 2, 2]


def test_a_text_is_read_alike_alone_and_among_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tagging, "_AT_ONCE", 40)
    texts = ["hello " * number + "Ann" for number in range(20)] + ["Bob Smith"]
    tagger = open_tagger(str(folder))
    assert tagger.find(texts) == [tagger.find([text])[0] for text in texts]
    assert [len(part) for part in length_sorted([30, 5, 5, 20, 20], tagging._AT_ONCE, 5, padded=True)] == [2, 2, 1]


def test_a_model_that_marks_no_persons_is_refused_with_its_labels(tmp_path: Path) -> None:
    folder = save_tagger(tmp_path / "tagger", ("O", "B-LOC", "B-ORG"))
    with pytest.raises(CompatibilityError, match=r"no label for persons.*O, B-LOC, B-ORG\. Wanted: PER or PERSON"):
        open_tagger(str(folder))


def test_models_that_cannot_be_used_are_named(folder: Path, tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="^tagger: the folder ./nowhere does not exist"):
        open_tagger("./nowhere")
    with pytest.raises(RecipeError, match="^tagger: its name is empty. Give minilm, a folder or a hub name"):
        open_tagger(" ")
    with pytest.raises(CheckpointError, match="^tagger: there is no folder owner/name, and the hub"):
        open_tagger("owner/name")
    with pytest.raises(CompatibilityError, match="no label for persons.*LABEL_0, LABEL_1"):
        open_tagger(str(tiny_folder))  # an encoder without such a head
    headless = shutil.copytree(folder, tmp_path / "headless")
    weights = load_file(headless / "model.safetensors")
    save_file({name: one for name, one in weights.items() if "classifier" not in name},
              headless / "model.safetensors", {"format": "pt"})  # fmt: skip
    with pytest.raises(CheckpointError, match=r"^tagger: the weights of .* lack 2 tensors"):
        open_tagger(str(headless))
    pickled = shutil.copytree(folder, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(SecurityError, match=r"^tagger: .* holds its weights only as pytorch_model\.bin"):
        open_tagger(str(pickled))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(TunesmithError, match="^tagger: "):
        open_tagger(str(folder))


def test_a_space_that_a_token_counts_in_is_not_of_the_name() -> None:
    text = "met Ann Lee"
    assert tagging._names(text, {(0, 3): 0, (3, 7): 1, (7, 11): 2}, {1: "B", 2: "I"}) == [(4, 11)]
