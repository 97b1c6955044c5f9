"""The recipe's keys, each with its default, bounds, unit and one sentence.

`task` and `method` name a component of the registry and carry its settings; they are validated by the component.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from tunesmith.core.settings import Settings, setting
from tunesmith.recipe.named import OfKind, named
from tunesmith.recipe.prompt import PromptFields

Component = Annotated[dict[str, Any], BeforeValidator(named)]
OptimizerKind = Annotated[dict[str, Any], OfKind("optimizers")]
ScheduleKind = Annotated[dict[str, Any], OfKind("schedules")]
TrackerKind = Annotated[dict[str, Any], OfKind("trackers")]
SyntheticKind = Annotated[dict[str, Any], OfKind("synthetic")]
RegularizerKind = Annotated[dict[str, Any], OfKind("regularizers")]
Rate = Annotated[float, Field(gt=0, le=10)]
Weight = Annotated[float, Field(gt=0)]


class NewModelSettings(Settings):
    """A model with random weights and a tokenizer trained on the training texts, for pretraining from scratch."""

    size: Literal["tiny", "small", "medium", "large"] = setting(
        "tiny", "Layers x width: 4 x 128, 6 x 384, 12 x 768, 24 x 1024."
    )
    architecture: str = setting("llama", "Architecture of transformers: llama, gpt2, bart, t5, bert, ...")
    config: dict[str, Any] = setting({}, "Keys of the architecture's config that differ from the size's.")
    tokenizer: Literal["bpe", "characters"] = setting("bpe", "Byte-level BPE, or one token per character.")
    vocabulary: int = setting(8192, "Tokens of the BPE.", unit="count", ge=258)


class ModelSettings(Settings):
    """The pretrained model."""

    name: str = setting("minilm", "Embedded name, local folder, or hub name (owner/name).")
    device: str = setting("auto", "Where to run: auto, cpu, cuda, cuda:1, mps.")
    dtype: Literal["float32", "float64", "bfloat16", "float16"] = setting("float32", "Type of the base weights.")
    new: NewModelSettings | None = setting(None, "Make a new model instead of loading one; with method full.")
    quantization: Literal["int8", "int4"] | None = setting(
        None, "Bits in which the frozen linear maps are stored (int4: NF4, as in QLoRA); full precision when empty."
    )


class DataSettings(Settings):
    """Where the examples are and what their columns mean."""

    train: str = Field(
        description="Training file (csv, tsv, json, jsonl, parquet), folder written by datasets, or hub name."
    )
    also_train: list[str] = setting(
        [], "Further files of the same columns whose rows train as well, for example the validation file at the end."
    )
    validation: str | float | None = setting(
        0.1,
        "A file, or the share of train that is held out, stratified by label; no validation rows when empty, and the "
        "last epoch is kept.",
        unit="fraction",
    )
    test: str | float | None = setting(
        None, "A file, or the share of train that is held out, as validation; evaluated once, after training."
    )
    unlabelled: str | None = setting(
        None, "A file of rows without labels, to learn from besides (semi_supervised, dual_learning)."
    )
    unseen: str | None = setting(
        None, "A file of labelled rows of classes without training rows, which are told by their attributes."
    )
    seed: int | None = setting(None, "Seed of the draw of shares; the recipe's when empty.", ge=0, le=2**32 - 1)
    group: str | None = setting(None, "Column whose rows of one value stay in one split when shares are held out.")
    time: str | None = setting(
        None, "Column of dates or numbers; shares are the latest rows, test behind validation behind train."
    )
    folds: int | None = setting(
        None, "Parts of train of which one is validation, instead of the share data.validation.", unit="count", ge=2
    )
    fold: int = setting(0, "Which of the parts, from 0; those of the second draw follow those of the first.", ge=0)
    fold_repeats: int = setting(
        1, "Times that train is cut into parts, each time anew: repeated cross-validation.", unit="count", ge=1
    )
    near_copies: float | None = setting(
        None,
        "Rows whose texts (or questions, or answers) are at least so similar stay in one split when shares are held "
        "out: Jaccard similarity of character trigrams, for example 0.7.",
        unit="fraction",
        gt=0,
        le=1,
    )
    text: str = setting("text", "Column that holds the text.")
    label: str = setting("label", "Column that holds the label.")
    out_of_scope: str | None = setting(
        None,
        "What rows that belong to no label are called in validation and test; with task.reject. They do not train.",
    )
    label_descriptions: str | None = setting(
        None, "YAML or JSON file of labels and what each means in words; read where labels' texts are used."
    )
    soft_labels: str | None = setting(
        None,
        "Column of train with a probability for every label, as a JSON object in the cell; what is learned then. The "
        "label column holds the likeliest.",
    )
    teacher: str | None = setting(
        None, "A run whose answers to the training rows are learned besides their labels: knowledge distillation."
    )
    teacher_weight: float = setting(
        0.5, "Share of the teacher's answer in what a row learns; its label has the rest.", unit="fraction", gt=0, le=1
    )
    teacher_temperature: float = setting(1.0, "Above 1 flattens the teacher's answers, below 1 sharpens them.", gt=0)
    row_weights: str | None = setting(
        None, "Column of train with a weight of 0 or more per row: how much its loss counts; only proportions matter."
    )
    columns: list[str] = setting(
        [], "Names of the columns, in order, of a csv or tsv without a header, or of a txt with tabs between cells."
    )
    encoding: str = setting("utf-8", "Character encoding of text files.")
    max_tokens: int | None = setting(None, "Longest row; the model's limit when empty.", unit="tokens", ge=2)
    max_characters: int = setting(
        1_000_000, "A longer cell is an error: most often an unclosed quote.", ge=1, le=2**31 - 1
    )
    empty: Literal["error", "drop"] = setting("error", "What to do with rows whose text or label is empty.")
    leakage: Literal["keep", "drop", "error"] = setting(
        "keep", "What to do with training rows that also stand in validation or test; keep warns."
    )
    cleaning: list[Component] = setting(
        [], "Cleaning steps by name, or mappings with their settings; changes of texts first, then filters of train."
    )
    augmentation: list[Component] = setting(
        [], "Augmentations by name, or mappings with their settings: other forms of the training rows in every epoch."
    )


class PromptSettings(PromptFields):
    """How an example becomes the text that the model reads."""

    file: str | None = setting(None, "Prompt file, beside the recipe, in the place of the other keys of a prompt.")
    templates: list[str] = setting(
        [],
        "Further templates: every epoch draws one of all per row, and answers are means over all of them.",
    )
    chat: str = setting(
        "auto",
        "Chat template of tasks that write: model (its own), plain, bare, alpaca, chatml; auto: its own, else plain, "
        "or bare on encoder-decoders.",
    )
    system: str = setting("", "System message of conversations that bring none.")
    end_token: str | None = setting(None, "Token that ends an answer, for tokenizers that name none.")


class GuardSettings(Settings):
    """When training stops because a step went wrong; a loss or a gradient that is no number always stops it."""

    spike: float | None = setting(
        None,
        "A step's loss may be so many times the largest of the steps before it; above that training stops. Any when "
        "empty.",
        gt=1,
    )
    window: int = setting(20, "So many steps before it are looked at.", unit="count", ge=1)


def _off(given: Any) -> Any:
    """Take the word off as it was written: YAML reads it as false."""
    return "off" if given is False else given


class TrainingSettings(Settings):
    """How the delta and the head are trained."""

    epochs: int = setting(3, "Passes over the training rows.", unit="count", ge=1)
    max_steps: int | None = setting(
        None, "Most optimizer steps: an epoch that reaches them ends there and is the last.", unit="count", ge=1
    )
    batch_size: int = setting(32, "Rows per optimizer step.", unit="count", ge=1)
    label_rows: float = setting(
        0.0, "Rows of labels' own texts that train besides, for each training row.", ge=0, le=10
    )
    token_dropout: float = setting(
        0.0, "Share of tokens hidden in training rows, drawn in every epoch.", unit="fraction", ge=0, lt=1
    )
    score_every: int = setting(1, "Epochs between two scorings on validation; the last one is scored.", ge=1)
    rows_per_label: int | None = setting(
        None,
        "Rows of one label that stand together in a step, for losses that compare rows; by chance when empty.",
        unit="count",
        ge=2,
    )
    balance: Literal["none", "oversample", "undersample"] = setting(
        "none",
        "Rows of an epoch: oversample has every label as often as the most frequent one, undersample as often as the "
        "rarest one, drawn anew in every epoch.",
    )
    synthetic: SyntheticKind | None = setting(
        None,
        "Rows made of others while training, by name or with settings: tunesmith list synthetic.",
    )
    class_weights: Literal["balanced", "root"] | dict[str, Weight] | None = setting(
        None,
        "Factor of the loss of a label's rows: balanced is 1 over its rows, root the square root of that, or factors "
        "by label (1 where none is given); all of mean 1 over the training rows.",
    )
    tokens_per_pass: int | None = setting(
        None,
        "Most tokens that go through the model at once: a step of more runs in passes whose gradients add up to the "
        "same; 512 to 1024 on a CPU, by what a token keeps, and all on a GPU when empty.",
        unit="tokens",
        ge=1,
    )
    memory_limit: int | None = setting(
        None,
        "Most memory that training may take, of the process or on a GPU; what is free when empty. A step that would "
        "take more runs in smaller passes; where one row is too much, blocks run a second time for their gradients.",
        unit="MiB",
        ge=1,
    )
    shard_base: bool = setting(
        False,
        "Whether processes that train together share out the base's blocks: each holds its part of every matrix and "
        "gathers a block while it computes with it. For a base that no process should hold whole; one alone does.",
    )
    precision: Literal["float32", "bfloat16", "int8", "float8"] = setting(
        "float32",
        "How a float32 model's frozen weights are multiplied in training: bfloat16, int8 (CPUs) and float8 (GPUs, and "
        "of a bfloat16 model too) round both sides of a product, the last two with a scale per row; everything else "
        "stays as it is.",
    )
    cache: Annotated[Literal["auto", "off", "memory", "disk"], BeforeValidator(_off)] = setting(
        "auto",
        "Where what frozen blocks below the first trained one give is kept between epochs: auto is memory, where there "
        "are such blocks and cache_limit allows it; disk keeps it for later runs too.",
    )
    cache_type: Literal["exact", "bfloat16"] = setting(
        "exact", "How it is kept: exact is as the model computes it, bfloat16 takes half the place and rounds."
    )
    cache_limit: int = setting(1024, "Most memory for it.", unit="MiB", ge=1)
    learning_rate: float = setting(1e-3, "Highest learning rate.", gt=0, le=10)
    head_learning_rate: float | None = setting(None, "Learning rate of the head; learning_rate when empty.", gt=0)
    part_learning_rates: dict[str, Rate] = setting(
        {}, "Learning rates of parameters of the delta by a pattern of their names (*.layer.5.*); the first that fits."
    )
    optimizer: OptimizerKind = setting({"name": "adamw"}, "The optimizer by name, or a mapping with its settings.")
    schedule: ScheduleKind = setting(
        {"name": "cosine"}, "How the learning rate falls, by name, or a mapping with its settings."
    )
    warmup_fraction: float = setting(0.06, "Share of the steps in which it rises.", ge=0, lt=1)
    weight_decay: float = setting(0.01, "Weight decay of matrices, in the form that the optimizer gives it.", ge=0)
    regularizers: list[RegularizerKind] = setting(
        [], "Penalties, noise and averages by name, or mappings with their settings: see `tunesmith list regularizers`."
    )
    clip_norm: float | None = setting(1.0, "Largest gradient norm; none when empty.", gt=0)
    clip_value: float | None = setting(
        None, "Largest size of a single number of a gradient, cut before the norm; none when empty.", gt=0
    )
    label_smoothing: float = setting(0.0, "Share of the target spread over all classes.", unit="fraction", ge=0, lt=1)
    dropout: float | None = setting(None, "Dropout inside the model; as the model has it when empty.", ge=0, lt=1)
    frozen_dropout: bool = setting(
        True,
        "Whether the frozen blocks below the first trained one drop at random as the others do; false runs them as in "
        "evaluation, so what they give for a row may be kept between epochs (see cache).",
    )
    best: str = setting(
        "auto", "What decides the best epoch: auto (the task's first metric), 'validation loss', 'last', or a metric."
    )
    keep_best: int = setting(
        1,
        "How many of the best epochs' states the run keeps, in best/ where more than one.",
        unit="count",
        ge=1,
        le=100,
    )
    average_best: bool = setting(
        False, "Let the mean of those states answer where it is no worse on validation than the best of them."
    )
    patience: int | None = setting(None, "Stop after so many epochs without a better one; never when empty.", ge=1)
    guard: GuardSettings = setting(GuardSettings(), "When a step that went wrong stops training.")
    trackers: list[TrackerKind] = setting(
        [], "Who is told the numbers while training goes on, by name, or mappings with settings: tensorboard, mlflow."
    )
    checkpoint_every_steps: int | None = setting(
        None,
        "Steps between two checkpoints that a killed run goes on from; when empty, after every epoch, but at most one "
        "in ten seconds.",
        unit="count",
        ge=1,
    )


class EvaluationSettings(Settings):
    """What is measured and against what."""

    metrics: list[str] | None = setting(None, "Metrics by name; the task's own list when empty.")
    baselines: list[str] | Literal[False] | None = setting(
        None, "Baselines by name; the task's own list when empty; false for none."
    )
    resamples: int = setting(1000, "Bootstrap resamples behind an interval.", unit="count", ge=100)
    confidence: float = setting(0.95, "Confidence of the intervals.", unit="fraction", gt=0.5, lt=1)


class Recipe(Settings):
    """Everything a run needs; what is not given has a default."""

    task: Component = setting({"name": "text-classification"}, "The task by name, or a mapping with its settings.")
    model: Annotated[ModelSettings, BeforeValidator(named)] = setting(
        ModelSettings(), "The model by name, or a mapping with its settings."
    )
    data: DataSettings = Field(description="The examples.")
    prompt: PromptSettings = setting(PromptSettings(), "The prompt.")
    method: Component = setting({"name": "lora"}, "The method by name, or a mapping with its settings.")
    training: TrainingSettings = setting(TrainingSettings(), "The training.")
    semi_supervised: Component | None = setting(
        None, "How the rows of data.unlabelled are learned from, by name, or a mapping with its settings."
    )
    dual_learning: Component | None = setting(
        None, "Two views, networks or classifiers that teach each other, by name, or a mapping with its settings."
    )
    attributes: Component | None = setting(
        None, "How classes without training rows are told, by name, or a mapping with its settings: rules, model, ..."
    )
    evaluation: EvaluationSettings = setting(EvaluationSettings(), "The evaluation.")
    start_from: str | None = setting(
        None, "Earlier run to go on from with new examples; its labels are kept, new ones are added."
    )
    candidates: list[dict[str, Any]] = setting(
        [],
        "Variants of method, training and seed, trained in one pass over one base; `combine` says what is kept.",
    )
    ensemble: Component | None = setting(
        None,
        "How members are made of this recipe, in the place of candidates, by name, or a mapping with its settings.",
    )
    combine: Component = setting(
        {"name": "best"},
        "What is kept of candidates or members: the best on validation, one answer of all, or a mean of their weights; "
        "where empty, best of candidates, and what suits the ensemble.",
    )
    seed: int = setting(0, "Seed of everything that draws at random.", ge=0, le=2**32 - 1)
    output: str = setting("runs/run", "Folder that the run is written to.")

    @property
    def split_seed(self) -> int:
        """The seed that the shares of train are drawn with."""
        return self.seed if self.data.seed is None else self.data.seed
