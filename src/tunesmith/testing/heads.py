"""What every head and every loss must keep; third parties run it on theirs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tunesmith.tasks.heads.base import Head, RowsHead, Start, load_head
from tunesmith.tasks.loss import Learned, Loss

_ROWS, _WIDTH, _CLASSES, _SCALE = 12, 8, 3, 10.0


def _material() -> Start:
    """Three groups of rows that lie apart, and texts near them."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(_ROWS) % _CLASSES
    centres = torch.randn(_CLASSES, _WIDTH, generator=draw)
    features = centres[labels] + 0.2 * torch.randn(_ROWS, _WIDTH, generator=draw)
    texts = nn.functional.normalize(centres + 0.2 * torch.randn(_CLASSES, _WIDTH, generator=draw), dim=-1)
    return Start(features, labels, texts, texts)


def _answers(module: nn.Module, x: Tensor) -> Tensor:
    found: Tensor = module.learn(x, torch.arange(len(x))) if isinstance(module, RowsHead) else module(x)
    return found


def check_head(kind: type[Head]) -> None:
    """Check a head on rows of three labels that lie apart.

    Args:
        kind: the head's class.
    Raises:
        AssertionError: a promise is broken; the message says which.
    """
    head, start = kind(), _material()
    module = head.build(_WIDTH, _CLASSES, _SCALE, 0.0)
    assert isinstance(module, RowsHead) == kind.keeps_rows, f"{kind.name}: keeps_rows must say whether it is a RowsHead"
    vectors = getattr(module, "weight", None)
    assert (vectors is not None) == kind.has_vectors, f"{kind.name}: has_vectors must say whether it has a weight"
    head.start(module, start, _SCALE)
    module.eval()
    logits = module(start.features)
    assert logits.shape == (_ROWS, _CLASSES) and logits.isfinite().all(), f"{kind.name}: logits are (R, C) and finite"
    assert torch.equal(logits.argmax(1), start.labels), f"{kind.name}: the start must tell rows that lie apart"
    alone = torch.cat([module(row[None]) for row in start.features])
    assert torch.allclose(logits, alone, atol=1e-5), f"{kind.name}: a row's answer must not depend on its neighbours"
    x = torch.randn(_ROWS, _WIDTH, generator=torch.Generator().manual_seed(2)).requires_grad_()
    nn.functional.cross_entropy(_answers(module.train(), x), start.labels).backward()
    assert x.grad is not None and x.grad.abs().sum() > 0, f"{kind.name}: gradients must reach the features"
    again = head.build(_WIDTH, _CLASSES, _SCALE, 0.0).eval()
    assert load_head(again, module.state_dict()), f"{kind.name}: a fresh head must load what another one saved"
    assert torch.equal(again(start.features), module.eval()(start.features)), f"{kind.name}: loading must be bit-equal"


def check_loss(kind: type[Loss]) -> None:
    """Check a loss on rows of three labels that lie apart.

    Args:
        kind: the loss's class.
    Raises:
        AssertionError: a promise is broken; the message says which.
    """
    loss, start = kind(), _material()
    vectors = nn.functional.normalize(torch.randn(_CLASSES, _WIDTH, generator=torch.Generator().manual_seed(1)), dim=-1)

    def value(x: Tensor, labels: Tensor, by: Tensor = vectors) -> Tensor:
        return loss.compute(Learned(x, labels, _SCALE * nn.functional.normalize(x, dim=-1) @ by.T, by))

    x = torch.randn(_ROWS, _WIDTH, generator=torch.Generator().manual_seed(2)).requires_grad_()
    first = value(x, start.labels)
    assert first.ndim == 0 and first.isfinite(), f"{kind.name}: a loss is a finite scalar"
    first.backward()
    assert x.grad is not None and x.grad.abs().sum() > 0, f"{kind.name}: gradients must reach the features"
    order = torch.randperm(_ROWS, generator=torch.Generator().manual_seed(3))
    shuffled = value(x.detach()[order], start.labels[order])
    assert torch.isclose(shuffled, first, rtol=1e-5), f"{kind.name}: the order of rows must not matter"
    assert start.label_features is not None
    apart = value(start.features, start.labels, start.label_features)
    assert apart < first, f"{kind.name}: rows that lie with their label must cost less than random ones"
    parts = [value(x.detach()[part], start.labels[part]) for part in (slice(0, 6), slice(6, None))]
    separates = bool(torch.isclose((parts[0] + parts[1]) / 2, first, rtol=1e-5))
    assert kind.separable == separates, f"{kind.name}: separable must say whether the parts of a batch average to it"
