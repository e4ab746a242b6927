"""What a model learns from besides the captions: a teacher, and what it said itself before."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clipsearch.encoders.openclip import OpenClipModel
from training.blockwise import distillation_in_blocks
from training.data import CaptionedPicture
from training.general_texts import general_texts
from training.loss import feature_distillation
from training.team import Team
from training.towers import encode_pictures, encode_texts
from training.views import Views

_GENERAL_TEXTS = 256  # to keep close to the old model on
KEPT_AT_ONCE = 16


class OldSelf:
    """What the model said before it learned, to be kept close to (``Recipe.keep_close``)."""

    def __init__(
        self, loaded: OpenClipModel, views: Views, *, wanted: bool, images_move: bool
    ) -> None:
        self.texts = general_texts(_GENERAL_TEXTS, "learn") if wanted else []
        self._images: Tensor | None = None
        if wanted:
            self._of_texts = torch.from_numpy(encode_texts(loaded, self.texts)).to(loaded.device)
            if images_move:
                self._images = torch.from_numpy(encode_pictures(loaded, views)).to(loaded.device)

    def distance(self, texts: Tensor, rows: Sequence[int]) -> Tensor:
        """How far some general texts have moved; ``texts`` (n, dim) are their vectors now."""
        return feature_distillation(texts, self._of_texts[list(rows)])

    def picture_distance(self, images: Tensor, places: Sequence[int]) -> Tensor:
        """How far the pictures of a batch have moved; 0 where they cannot."""
        if self._images is None:
            return images.new_zeros(())
        return feature_distillation(images, self._images[list(places)])


class Teacher:
    """Another model's vectors of all pictures, whole, and captions; computed once.

    ``what`` it teaches: ``both``: the similarities of pictures and captions; ``images`` or
    ``texts``: which pictures, or captions, are like each other. So its vectors need not
    have the student's length. The processes of a team share the work.
    """

    def __init__(
        self, loaded: OpenClipModel, pictures: Sequence[CaptionedPicture], what: str, team: Team
    ) -> None:
        self._what = what
        model = loaded.model.to(team.device)
        self._scale = model.logit_scale.detach().exp()  # type: ignore[operator]
        start, stop = team.share(len(pictures))
        images = encode_pictures(loaded, Views(pictures[start:stop], loaded.preprocessing))
        self._images = self._of_all(images, start, len(pictures), team)
        captions = sorted({caption for picture in pictures for caption in picture.captions})
        self._row = {caption: row for row, caption in enumerate(captions)}
        start, stop = team.share(len(captions))
        self._texts = self._of_all(
            encode_texts(loaded, captions[start:stop]), start, len(captions), team
        )
        model.to("cpu")

    def divergence(
        self,
        images: Tensor,
        texts: Tensor,
        scale: Tensor,
        places: Sequence[int],
        captions: Sequence[str],
        team: Team,
    ) -> Tensor:
        """How far the batch's similarities are from the teacher's; this process's share of it."""
        own_images = self._images[list(places)]
        own_texts = self._texts[[self._row[caption] for caption in captions]]
        if self._what == "images":
            texts, own_texts = images, own_images
        elif self._what == "texts":
            images, own_images = texts, own_texts
        return distillation_in_blocks(
            images,
            texts,
            scale,
            own_images,
            own_texts,
            self._scale,
            others_only=self._what != "both",
            team=team,
        )

    @staticmethod
    def _of_all(rows: object, start: int, total: int, team: Team) -> Tensor:
        return team.gather(torch.as_tensor(rows).to(team.device), start, total)
