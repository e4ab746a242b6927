"""The recipe of the embedded model: its numbers are checked, and its losses are what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from clipsearch.errors import TrainingError
from training.embedded import config
from training.loss import contrastive_loss

pytest.importorskip("pyarrow", reason="the recipe reads parquet files")
joint = pytest.importorskip("training.embedded.joint")


def _unit(rows: int, seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    return F.normalize(torch.randn(rows, 6, dtype=torch.float64), dim=1)


def test_the_shipped_recipe_reads_and_an_unknown_key_is_named(tmp_path: Path) -> None:
    assert config.read_config().images.backbone in ("lite0", "lite1", "lite2")
    wrong = tmp_path / "recipe.toml"
    text = config.DEFAULT.read_text(encoding="utf-8")
    wrong.write_text(text.replace("warmup", "warm_up"), encoding="utf-8")
    with pytest.raises(TrainingError, match="warm_up, warmup"):
        config.read_config(wrong)


def test_an_empty_memory_gives_the_plain_contrast() -> None:
    images, texts, scale = _unit(5, 0), _unit(5, 1), torch.tensor(9.0, dtype=torch.float64)
    alike = torch.eye(5, dtype=torch.bool)
    alike[0, 3] = True
    empty = joint.Memory(8)
    found = joint.contrast_with_memory(images, texts, scale, alike, empty, torch.empty(5, 0))
    assert torch.allclose(found, contrastive_loss(images, texts, scale, alike))


def test_vectors_of_the_memory_are_further_wrong_answers_unless_they_are_known() -> None:
    images, texts, scale = _unit(4, 0), _unit(4, 1), torch.tensor(9.0, dtype=torch.float64)
    memory = joint.Memory(8)
    memory.add(_unit(3, 2), _unit(3, 3), np.array([7, 8, 9]), [0, 1, 2])
    known = torch.zeros(4, 3, dtype=torch.bool)
    known[2, 1] = True
    found = joint.contrast_with_memory(
        images, texts, scale, torch.eye(4, dtype=torch.bool), memory, known
    )
    total = 0.0
    for mine, theirs, kept in ((images, texts, memory.texts), (texts, images, memory.images)):
        for row in range(4):
            others = [v for place, v in enumerate(kept) if not known[row, place]]
            logits = scale * torch.stack([*theirs, *others]) @ mine[row]
            total += float(torch.logsumexp(logits, 0) - logits[row])
    assert float(found) == pytest.approx(total / 8)


def test_the_memory_forgets_the_oldest() -> None:
    memory = joint.Memory(4)
    for start in (0, 3):
        memory.add(_unit(3, start), _unit(3, start + 1), np.arange(start, start + 3), [start] * 3)
    assert memory.photos.tolist() == [2, 3, 4, 5]
    assert memory.captions == [0, 3, 3, 3]
    assert torch.equal(memory.images[1:], _unit(3, 3))
    nothing = joint.Memory(0)
    nothing.add(_unit(3, 0), _unit(3, 1), np.arange(3), [1, 2, 3])
    assert len(nothing.photos) == 0


def test_the_two_halves_of_the_backbone_are_the_whole() -> None:
    timm = pytest.importorskip("timm")
    from training.embedded.backbone import Halves, Upper

    model = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0).eval()
    pictures = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        lower, pooled = Halves(model, 5)(pictures)
        assert torch.allclose(pooled, model(pictures), atol=1e-5)
        assert torch.allclose(Upper(model, 5).train()(lower), pooled, atol=1e-5)
