"""What the image tower's own classifier knows: 1,000 ImageNet classes, most absent from the photos.

The tower was published with its classifier, whose logits say of any photo how much it looks like
each class. ImageNet's classes are synsets of WordNet, so each has several names, a definition, and
more general classes above it. A text space in which those names rank a photo as the classifier
does knows words that no caption holds (distillation of logits: Hinton et al. 2015, arXiv
1503.02531, section 2).
"""

from __future__ import annotations

import random
from collections import Counter

import torch
from open_clip import IMAGENET_CLASSNAMES
from timm.data.imagenet_info import ImageNetInfo
from torch import Tensor
from torch.nn import functional as F

from training.embedded.corpus import noun_synsets

_TEMPLATES = ("{}", "a {}", "a photo of a {}")
_GENERAL = 120  # a class with more kinds than this ("artifact") says too little of a picture
_COMMON = 0.5  # how often a class goes by its most common name
_RAISED = 0.08  # how often a step names a whole branch of WordNet instead of its kinds


class ClassKnowledge:
    """The published classifier, with its classes' names: (1000, 1280) weight and (1000,) bias.

    ``texts`` are all phrases that name a class or a kind of classes, for the teacher to embed.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self._weight, self._bias = weight, bias
        synsets, info = noun_synsets(), ImageNetInfo()
        self.texts: list[str] = []
        self._chains: list[list[str]] = []  # per class: its synset, then ever more general ones
        names: dict[str, list[str]] = {}
        for number, common in enumerate(IMAGENET_CLASSNAMES):
            synset = info.index_to_label_name(number)[1:]
            chain = [synset]
            while (above := synsets[chain[-1]].above) is not None:
                chain.append(above)
            self._chains.append(chain)
            names[synset] = [common]
        kinds = Counter(synset for chain in self._chains for synset in chain)
        self._chains = [[s for s in chain if kinds[s] <= _GENERAL] for chain in self._chains]
        self._phrases: dict[str, range] = {}  # rows of texts, the common name's first
        for synset in sorted({synset for chain in self._chains for synset in chain}):
            found = synsets[synset]
            said = list(dict.fromkeys([*names.get(synset, []), *found.names]))
            phrases = [template.format(name) for name in said for template in _TEMPLATES]
            phrases.append(found.definition)
            start = len(self.texts)
            self.texts += phrases
            self._phrases[synset] = range(start, len(self.texts))

    def draw(self, features: Tensor, chance: random.Random) -> tuple[Tensor, list[int]]:
        """One way to name the classes, and the classifier's shares under these names.

        ``features`` (n, 1280) are pooled features of photos. Returns (n, names) probabilities and
        the row of ``texts`` for each name. Some branches are named as a whole ("dog" instead of
        118 breeds): their kinds' probabilities are added up.
        """
        raised = {synset for synset in self._phrases if chance.random() < _RAISED}
        places: dict[str, int] = {}
        label = torch.empty(len(self._chains), dtype=torch.int64)
        for number, chain in enumerate(self._chains):
            chosen = next((synset for synset in reversed(chain) if synset in raised), chain[0])
            label[number] = places.setdefault(chosen, len(places))
        shares = F.softmax(features @ self._weight.T + self._bias, dim=1)
        merged = torch.zeros(len(features), len(places)).index_add_(1, label, shares)
        return merged, [self._phrase(synset, chance) for synset in places]

    def _phrase(self, synset: str, chance: random.Random) -> int:
        rows = self._phrases[synset]
        return chance.choice(rows[: len(_TEMPLATES)] if chance.random() < _COMMON else rows)
