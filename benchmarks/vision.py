"""LoRA on a vision encoder of ViT-tiny's shape with random weights: images per second and peak memory against PEFT.

    python benchmarks/vision.py [--rows 32] [--steps 6] [--rounds 3] [--threads 2]

Random images of 224 x 224 pixels in patches of 16, ten classes. Both sides wrap the same transformers model
(`tunesmith.attach`, `peft.get_peft_model`) and are trained by the same plain loop on the same images; the first step is
not timed. Results go to benchmarks/results/vision.json.
"""

from __future__ import annotations

import time
from typing import Any

import common

LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2")
RANK, RATE, LABELS = 8, 1e-3, 10
KEYS = {"images_per_second": "images/s", "peak_bytes": "MB", "last_loss": "nats"}


def model_of() -> Any:
    """Build the model with random weights."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=192, num_hidden_layers=12, num_attention_heads=3, intermediate_size=768, num_labels=LABELS
    )
    return transformers.ViTForImageClassification(config)


def ours(model: Any) -> Any:
    """Attach our LoRA; the head trains too."""
    import tunesmith
    from tunesmith.methods import Lora

    delta = tunesmith.attach(model, Lora(rank=RANK, layers=LAYERS))
    model.classifier.requires_grad_(True)
    return model, [*delta.parameters(), *model.classifier.parameters()]


def theirs(model: Any) -> Any:
    """Wrap with PEFT's LoRA; the head trains too."""
    import peft

    config = peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=list(LAYERS), modules_to_save=["classifier"])
    wrapped = peft.get_peft_model(model, config)
    return wrapped, [one for one in wrapped.parameters() if one.requires_grad]


def worker(work: dict[str, Any]) -> dict[str, Any]:
    """Train a few steps."""
    import torch

    from tunesmith.core.memory import peak_bytes, restart_peak

    model, trained = (ours if work["side"] == "ours" else theirs)(model_of())
    model.train()
    optimizer, draw = torch.optim.AdamW(trained, lr=RATE), torch.Generator().manual_seed(0)
    images = torch.randn(work["rows"], 3, 224, 224, generator=draw)
    labels = torch.randint(LABELS, (work["rows"],), generator=draw)
    times, loss = list[float](), torch.zeros(())
    restart_peak()
    for _ in range(work["steps"] + 1):
        loss = torch.nn.functional.cross_entropy(model(pixel_values=images).logits, labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter())
    seconds = (times[-1] - times[0]) / work["steps"]
    return {"images_per_second": work["rows"] / seconds, "peak_bytes": peak_bytes(), "last_loss": loss.item()}


def main() -> None:
    parser = common.turns(common.parser(__doc__))
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--steps", type=int, default=6)
    given = parser.parse_args()
    works = {side: {"side": side, "rows": given.rows, "steps": given.steps} for side in ("ours", "peft")}
    case = f"{given.rows} images"
    common.keep("vision", case, common.in_turn(__file__, works, KEYS, given, case))


if __name__ == "__main__":
    common.begin(worker, main)
