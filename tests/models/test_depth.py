"""Frozen blocks run once per row; what they gave stands in for them afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from tests.models.test_ragged import FAMILIES, batch_of, loss_of, relative
from tunesmith.core.errors import CheckpointError, RecipeError
from tunesmith.methods.base import Method
from tunesmith.methods.bitfit import BitFit
from tunesmith.methods.head_only import HeadOnly
from tunesmith.methods.last_layers import LastLayers
from tunesmith.methods.lora import Lora
from tunesmith.methods.prefix import PrefixTuning
from tunesmith.models.backbone import Backbone
from tunesmith.models.delta import Delta
from tunesmith.models.depth import Depth, _rows, frozen_blocks, row_keys, undropped_below
from tunesmith.models.dropout import set_dropout
from tunesmith.models.language import LanguageModel
from tunesmith.models.layout import RaggedBatch, ragged
from tunesmith.models.row_store import RowStore

LAYERS = 4


def tuned(family: str, method: Method, dtype: torch.dtype = torch.float64) -> tuple[Backbone, Delta]:
    torch.manual_seed(0)
    config = FAMILIES[family]()
    config.num_hidden_layers = LAYERS
    if family == "modernbert":
        config.layer_types = ["full_attention", "sliding_attention"] * 2
    model = transformers.AutoModel.from_config(config).to(dtype)
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    for module in model.modules():
        for name, rate in vars(module).items():
            if isinstance(rate, float) and (name == "p" or "drop" in name):
                setattr(module, name, 0.0)
    backbone = Backbone(model.eval())
    delta = method.attach(backbone.seams)
    for parameter in delta.parameters():
        nn.init.normal_(parameter, std=0.1)
    return backbone, delta


def depth_of(backbone: Backbone, delta: Delta, batch: RaggedBatch, **settings: Any) -> Depth:
    blocks, why = frozen_blocks(backbone, [delta])
    assert blocks, why
    rows = [(key, length) for key, length in zip(row_keys(batch), batch.layout.lengths, strict=True)]
    dtype = settings.pop("dtype", next(backbone.model.parameters()).dtype)
    return Depth(backbone, blocks, [delta.name], RowStore(rows, backbone.width, dtype, **settings))


def gradients(backbone: Backbone, delta: Delta, batch: RaggedBatch) -> list[Tensor]:
    loss = loss_of(backbone.hidden(batch), batch.layout)
    return [loss, *torch.autograd.grad(loss, delta.parameters())]


@contextmanager
def counted(blocks: list[nn.Module]) -> Iterator[list[nn.Module]]:
    """Note which blocks really run: their norms and maps are called."""
    calls: list[nn.Module] = []
    handles = [
        module.register_forward_hook(lambda module, *_: calls.append(module))
        for block in blocks
        for module in block.modules()
        if module is not block
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", [Lora(rank=4, layers="top-half"), LastLayers(count=1)], ids=["lora", "last-layers"])
def test_the_same_batch_gives_the_same_bits(family: str, method: Method) -> None:
    backbone, delta = tuned(family, method)
    plain = gradients(backbone, delta, batch_of())
    backbone.below = depth_of(backbone, delta, batch_of())
    first = gradients(backbone, delta, batch_of())
    with counted(backbone.below.blocks) as calls:
        again = gradients(backbone, delta, batch_of())
    assert not calls, "frozen blocks ran a second time"
    for one, two, three in zip(plain, first, again, strict=True):
        assert torch.equal(one, two) and torch.equal(one, three)


def test_rows_in_other_company_give_the_same_numbers() -> None:
    backbone, delta = tuned("llama", Lora(rank=4, layers="top-half"))
    whole = batch_of()
    depth = depth_of(backbone, delta, whole)
    few = ragged([whole.part(row, row + 1).ids for row in (0, 5, 2)])
    more = ragged([whole.part(row, row + 1).ids for row in (4, 5, 6, 0)])
    plain = [gradients(backbone, delta, batch) for batch in (few, more)]
    backbone.below = depth
    for batch, wanted in zip((few, more), plain, strict=True):
        for one, two in zip(gradients(backbone, delta, batch), wanted, strict=True):
            assert relative(one, two) < 1e-6
    assert len(depth.store.missing) == whole.layout.rows - 5


def test_rows_of_several_deltas_keep_their_own_states() -> None:
    backbone, delta = tuned("bert", Lora(rank=2, layers="top-half"))
    other = Lora(rank=2, layers="top-half").attach(backbone.seams, "other")
    for parameter in other.parameters():
        nn.init.normal_(parameter, std=0.1)
    rows = [[5, 6, 7, 8, 9, 10], [11, 12, 13], [14, 15, 16, 17, 18, 19, 20, 21], [22, 23, 24, 25]]
    batch = ragged(rows, names=["default", "default", "other", "other"])
    assert batch.layout.lengths == (3, 6, 4, 8), "by delta, and not by length alone"
    plain = backbone.hidden(batch)
    store = RowStore(zip(row_keys(batch), batch.layout.lengths, strict=True), backbone.width, torch.float64)
    backbone.below = Depth(backbone, frozen_blocks(backbone, [delta, other])[0], ["default", "other"], store)
    for _ in range(2):
        assert relative(backbone.hidden(batch), plain) < 1e-10


def test_segments_stay_with_their_rows() -> None:
    batch = replace(ragged([[5, 6, 7], [8, 9]], names=["a", "b"]), segments=torch.tensor([0, 1, 1, 0, 1]))
    taken = _rows(batch, [0, 1])
    assert taken.ids.tolist() == [8, 9, 5, 6, 7] and taken.index.tolist() == [1, 0]
    assert taken.segments is not None and taken.segments.tolist() == [0, 1, 0, 1, 1]


def test_a_shared_prompt_runs_once_above_kept_states() -> None:
    torch.manual_seed(0)
    config = FAMILIES["llama"]()
    config.num_hidden_layers = LAYERS
    backbone = LanguageModel(transformers.AutoModelForCausalLM.from_config(config).eval())
    delta = Lora(rank=4, layers="top-half").attach(backbone.seams)
    for parameter in delta.parameters():
        nn.init.normal_(parameter, std=0.1)
    begin, draw = torch.arange(20, 50), torch.Generator().manual_seed(0)
    batch = ragged([torch.cat([begin, torch.randint(5, 96, (length,), generator=draw)]) for length in (3, 9, 6)])
    places = torch.tensor([4, 33, 40, 80])
    plain = backbone.hidden(batch)[places]
    backbone.below = depth_of(backbone, delta, batch)
    for _ in range(2):
        assert relative(backbone.hidden_at(batch, places), plain) < 1e-5


def test_rows_that_will_not_come_again_run_as_ever() -> None:
    backbone, delta = tuned("bert", Lora(rank=4, layers="top-half"))
    backbone.below = depth_of(backbone, delta, batch_of())
    other = ragged([[7, 8, 9]])
    assert backbone.below.of(other) is None
    assert backbone.hidden(other).shape == (3, 32)


def test_another_delta_that_touches_the_blocks_does_not_start_from_them() -> None:
    backbone, delta = tuned("bert", Lora(rank=4, layers="top-half"))
    depth = depth_of(backbone, delta, batch_of())
    deep = Lora(rank=4).attach(backbone.seams, "deep")
    for parameter in deep.parameters():
        nn.init.normal_(parameter, std=0.1)
    wanted = backbone.hidden(batch_of())
    backbone.below = depth
    assert torch.equal(backbone.hidden(batch_of()), wanted)
    assert depth.store.missing, "nothing was kept for it"


def test_how_deep_the_frozen_part_reaches() -> None:
    for method, count in [
        (Lora(rank=2, layers="top-half"), 2),
        (Lora(rank=2), 0),
        (LastLayers(count=1), 3),
        (HeadOnly(), LAYERS),
        (BitFit(), 0),
        (PrefixTuning(length=2), 0),
        (Lora(rank=2, layers=("encoder.layer.3.attention.self.query",)), 3),
    ]:
        backbone, delta = tuned("bert", method)
        blocks, why = frozen_blocks(backbone, [delta])
        assert len(blocks) == count and bool(why) == (count == 0), (method.name, why)


def test_random_dropping_below_forbids_it() -> None:
    backbone, delta = tuned("bert", Lora(rank=2, layers="top-half"))
    backbone.body.embeddings.dropout.p = 0.1  # type: ignore[union-attr]
    blocks, why = frozen_blocks(backbone, [delta])
    assert not blocks and "training.dropout" in why
    backbone.body.embeddings.dropout.p = 0.0  # type: ignore[union-attr]
    backbone.body.encoder.layer[3].output.dropout.p = 0.1  # type: ignore[union-attr,index]
    assert frozen_blocks(backbone, [delta])[0], "above the frozen part it does no harm"


def test_nothing_is_dropped_below_inside_the_block() -> None:
    backbone, delta = tuned("bert", Lora(rank=2, layers="top-half"))
    layers = backbone.body.encoder.layer  # type: ignore[union-attr]
    set_dropout(backbone.body, 0.1)
    below, above = layers[1].output.dropout, layers[2].output.dropout  # type: ignore[index]
    with undropped_below(backbone, [delta], print):
        assert (backbone.body.embeddings.dropout.p, below.p, above.p) == (0.0, 0.0, 0.1)  # type: ignore[union-attr]
        assert len(frozen_blocks(backbone, [delta])[0]) == 2
    assert (backbone.body.embeddings.dropout.p, below.p, above.p) == (0.1, 0.1, 0.1)  # type: ignore[union-attr]


def test_where_no_block_is_frozen_it_is_said() -> None:
    backbone, delta = tuned("bert", Lora(rank=2))
    said = list[str]()
    with undropped_below(backbone, [delta], said.append):
        pass
    assert len(said) == 1 and "first block is trained" in said[0]


def test_deltas_that_begin_at_unlike_blocks_are_not_quieted_together() -> None:
    backbone, first = tuned("bert", Lora(rank=2, layers="top-half"))
    second = Lora(rank=2).attach(backbone.seams, "second")
    with pytest.raises(RecipeError, match="above 0 and 2 frozen"):
        undropped_below(backbone, [first, second], print)


def test_a_file_serves_a_later_run(tmp_path: Path) -> None:
    backbone, delta = tuned("bert", Lora(rank=4, layers="top-half"))
    plain = backbone.hidden(batch_of())
    backbone.below = depth_of(backbone, delta, batch_of(), folder=tmp_path, owner="model")
    assert torch.equal(backbone.hidden(batch_of()), plain)
    backbone.below.store.close()
    backbone.below = depth_of(backbone, delta, batch_of(), folder=tmp_path, owner="model")
    assert not backbone.below.store.missing
    assert torch.equal(backbone.hidden(batch_of()), plain)
    other = depth_of(backbone, delta, batch_of(), folder=tmp_path, owner="another model")
    assert other.store.missing
    facts = next(tmp_path.glob("*/rows.json"))
    for damaged in ("{", '{"filled": [99]}'):
        for path in tmp_path.glob("*/rows.json"):
            path.write_text(damaged)
        with pytest.raises(CheckpointError, match="Delete that folder"):
            depth_of(backbone, delta, batch_of(), folder=tmp_path, owner="model")
    assert facts.exists()


def test_half_the_place_rounds() -> None:
    backbone, delta = tuned("bert", Lora(rank=4, layers="top-half"), torch.float32)
    plain = backbone.hidden(batch_of())
    backbone.below = depth_of(backbone, delta, batch_of(), dtype=torch.bfloat16)
    rounded = backbone.hidden(batch_of())
    assert 0 < relative(rounded, plain) < 0.03
