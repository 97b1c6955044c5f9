"""The small convolutional encoder: shapes, seeds, seams, files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import tunesmith
from tunesmith.core.errors import CheckpointError, DataError
from tunesmith.models.convolution import ConvSettings, conv_encoder, is_conv_folder, load_conv

SMALL = ConvSettings(size=8, blocks=2, channels=8, groups=2)


def images(rows: int = 3) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (rows, 1, 8, 8), generator=draw, dtype=torch.uint8)


def test_the_usual_shape_and_its_size() -> None:
    model = conv_encoder()
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, model.width) == (2, 64)
    assert sum(own.numel() for own in model.parameters()) == 640 + 3 * 36928 + 4 * 128


def test_a_seed_decides_and_nothing_else_moves() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again, other = conv_encoder(SMALL, 1), conv_encoder(SMALL, 1), conv_encoder(SMALL, 2)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first(images()), again(images())) and not torch.equal(first(images()), other(images()))


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    model = conv_encoder(SMALL).double()
    assert torch.allclose(model(images())[:1], model(images()[:1]), rtol=1e-12)


@pytest.mark.parametrize(
    "method",
    [tunesmith.methods.Lora(rank=2, layers="convolution"), tunesmith.methods.Full(), tunesmith.methods.BitFit()],
)
def test_deltas_attach_train_and_leave(method: object) -> None:
    model = conv_encoder(SMALL)
    before = model(images())
    delta = tunesmith.attach(model, method)  # type: ignore[arg-type]
    assert torch.allclose(model(images()), before, atol=1e-6)
    model(images()).square().sum().backward()
    assert all(own.grad is not None for own in delta.parameters())
    with torch.no_grad():
        for own in delta.parameters():
            own += 0.1
    assert not torch.allclose(model(images()), before, atol=1e-3)
    delta.detach()
    assert torch.equal(model(images()), before)


def test_saved_and_read_again(tmp_path: Path) -> None:
    model = conv_encoder(SMALL, 3)
    model.save(tmp_path / "base")
    assert is_conv_folder(tmp_path / "base") and not is_conv_folder(tmp_path)
    assert torch.equal(load_conv(tmp_path / "base")(images()), model(images()))
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    (tmp_path / "base" / "config.json").write_text(json.dumps({**config, "channels": 16}))
    with pytest.raises(CheckpointError, match="damaged"):
        load_conv(tmp_path / "base")
    (tmp_path / "base" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(CheckpointError, match="not a convolutional encoder"):
        load_conv(tmp_path / "base")


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(DataError, match="cannot be halved 4 times"):
        conv_encoder(ConvSettings(size=8))
    with pytest.raises(DataError, match="do not split into 8 groups"):
        conv_encoder(ConvSettings(channels=12))
    with pytest.raises(DataError, match=r"the encoder reads \(rows, 1, 8, 8\)"):
        conv_encoder(SMALL)(torch.zeros(2, 3, 8, 8))
