"""Tasks that give every row one label: a head on the model's pooled output."""

from __future__ import annotations

from torch import Tensor, nn

from tunesmith.models.backbone import Backbone
from tunesmith.models.delta import Delta
from tunesmith.models.layout import Layout, RaggedBatch
from tunesmith.tasks.base import Task


class LabelTask(Task):
    """Base of tasks with a label per row."""

    def features(self, backbone: Backbone, hidden: Tensor, layout: Layout) -> Tensor:
        """Reduce hidden states to what the head reads.

        Args:
            backbone: the model.
            hidden: (N, D).
            layout: of R rows.
        Returns:
            (R, D).
        """
        raise NotImplementedError

    def places(self, layout: Layout) -> Tensor | None:
        """Say which tokens `features` reads.

        Args:
            layout: of R rows.
        Returns:
            (R,), one of every row; None for all tokens.
        """
        return None

    def loss(self, logits: Tensor, batch: RaggedBatch, smoothing: float) -> Tensor:
        """Cross-entropy, mean over the rows: - sum_c q_c log p_c, where q is the label or its soft labels.

        Args:
            logits: (R, C).
            batch: with labels.
            smoothing: share of the target spread over all classes. [fraction]
        Returns:
            A scalar.
        """
        assert batch.labels is not None
        wanted = batch.labels.to(logits.device)
        wanted = wanted.to(logits.dtype) if wanted.ndim == 2 else wanted
        return nn.functional.cross_entropy(logits, wanted, label_smoothing=smoothing)

    def read(self, backbone: Backbone, batch: RaggedBatch) -> Tensor:
        """Run the model and pool each row; where one token of a row is read, the last block ends with it."""
        places = self.places(batch.layout)
        if places is None:
            return self.features(backbone, backbone.hidden(batch), batch.layout)
        return self.features(backbone, backbone.hidden_at(batch, places), Layout((1,) * batch.layout.rows))

    def loss_of(
        self, backbone: Backbone, head: nn.Module, delta: Delta, outputs: Tensor, batch: RaggedBatch, smoothing: float
    ) -> Tensor:
        """Apply the head and take the mean loss over the rows."""
        return self.loss(head(outputs), batch, smoothing)
