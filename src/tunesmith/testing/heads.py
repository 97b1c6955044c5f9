"""What every head must keep; third parties run it on theirs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tunesmith.tasks.heads.base import Head, RowsHead, Start, load_head

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
