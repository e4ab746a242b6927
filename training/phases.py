"""What is trained in one go: all epochs, and one more with larger pictures if that is wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from clipsearch.encoders.openclip import OpenClipModel
from clipsearch.errors import TrainingError
from training.data import CaptionedPicture
from training.forgetting import Weights, copy_weights
from training.layers import images_move
from training.loop import Recipe, Step, train
from training.resolution import at_size
from training.run_folder import RunFolder
from training.team import Team

_LAST_EPOCH_RATE = 0.1  # of the highest rate: little is to change


@dataclass(frozen=True)
class Phases:
    """Trains ``loaded`` again and again from where it started, each time in a folder of its own.

    ``side`` in pixels is that of the pictures of the last epoch (CLIP section 2.5); None: there is
    no such epoch.
    """

    loaded: OpenClipModel
    recipe: Recipe
    folder: RunFolder
    side: int | None
    teacher: OpenClipModel | None
    team: Team
    on_step: Callable[[str, Step], None] | None
    should_stop: Callable[[], bool] | None

    def start(self) -> tuple[Weights, Weights]:
        """The weights to start from, and the same for the size of what comes out."""
        if self.side and not images_move(self.recipe.learn):
            raise TrainingError(
                reason="--last-epoch-size needs an image tower that learns: --learn all, say"
            )
        weights = copy_weights(self.loaded.model)
        if self.side is None:
            return weights, weights
        return weights, copy_weights(at_size(self.loaded, self.side).model)

    def learn(self, pictures: Sequence[CaptionedPicture], name: str, phase: str) -> OpenClipModel:
        """The model after all epochs: ``loaded``, or a larger one of the same origin."""
        self._train(self.loaded, pictures, self.recipe, name, phase)
        if self.side is None:
            return self.loaded
        recipe, side = self.recipe, self.side
        steps = -(-len(pictures) // min(recipe.batch_size, len(pictures)))
        last = replace(
            recipe,
            steps=steps,
            lr=recipe.lr * _LAST_EPOCH_RATE,
            warmup=max(1, min(recipe.warmup, steps // 10)),
            side=side,
        )
        larger = at_size(self.loaded, side)
        self._train(larger, pictures, last, f"{name}-{side}", f"{phase}-{side}")
        return larger

    def _train(
        self,
        model: OpenClipModel,
        pictures: Sequence[CaptionedPicture],
        recipe: Recipe,
        name: str,
        phase: str,
    ) -> None:
        def follow(step: Step) -> None:
            if not self.team.leads:
                return
            self.folder.log(phase, step)
            if self.on_step is not None:
                self.on_step(phase, step)

        train(
            model,
            pictures,
            recipe,
            self.folder.path / f"checkpoint-{name}",
            teacher=self.teacher,
            team=self.team,
            tell=follow,
            should_stop=self.should_stop,
        )
