"""The training objectives, as pure functions of unit vectors.

Shapes: n pictures or captions of a batch, dim numbers a vector. All return a scalar.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_LOGIT_SCALE = 100.0  # CLIP section 2.5: larger scales made training unstable


def contrastive_loss(
    images: Tensor, texts: Tensor, logit_scale: Tensor, alike: Tensor | None = None
) -> Tensor:
    """The mean of image-to-text and text-to-image cross-entropy (CLIP section 2.3, Figure 3).

    ``images`` and ``texts`` are (n, dim) unit rows, row i of one belonging to row i of the other;
    ``logit_scale`` is exp of the learned temperature parameter, a scalar. ``alike`` (n, n) bool
    marks pairs that belong together besides the diagonal (the same caption, the same picture):
    they are left out of the negatives. Returns a scalar.
    """
    logits = logit_scale * images @ texts.T
    if alike is not None:
        others = alike & ~torch.eye(len(alike), dtype=torch.bool, device=alike.device)
        logits = logits.masked_fill(others | others.T, float("-inf"))
    target = torch.arange(len(logits), device=logits.device)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


def sigmoid_loss(
    images: Tensor,
    texts: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
    alike: Tensor | None = None,
) -> Tensor:
    """Each pair judged by itself (SigLIP, Zhai et al. 2023, section 3.2, Algorithm 1).

    -1/n sum over i, j of log sigmoid(z_ij (t x_i . y_j + b)), with z = 1 on the diagonal and -1
    elsewhere; ``images`` x and ``texts`` y are (n, dim) unit rows, ``logit_scale`` t and
    ``logit_bias`` b scalars. Pairs off the diagonal that are ``alike`` (n, n) are left out.
    """
    logits = logit_scale * images @ texts.T + logit_bias
    own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    terms = F.logsigmoid(torch.where(own, logits, -logits))
    if alike is not None:
        terms = terms.masked_fill((alike | alike.T) & ~own, 0.0)
    return -terms.sum() / len(logits)


def similarity_distillation(
    images: Tensor,
    texts: Tensor,
    logit_scale: Tensor,
    teacher_images: Tensor,
    teacher_texts: Tensor,
    teacher_scale: Tensor,
) -> Tensor:
    """How far a student's answers within the batch are from its teacher's, 0 if they are equal.

    The mean over both directions of KL(teacher row || student row), rows being softmax(scale x y')
    (distillation of logits: Hinton et al. 2015, section 2; between dual encoders: CLIP-KD, Yang et
    al. 2024, section 3.2, contrastive relational distillation). All vectors are unit rows: the
    student's (n, dim) and the teacher's (n, teacher_dim), which may differ; scales are scalars.
    No gradient flows to the teacher.
    """
    student = logit_scale * images @ texts.T
    teacher = (teacher_scale * teacher_images @ teacher_texts.T).detach()
    return 0.5 * (_divergence(teacher, student) + _divergence(teacher.T, student.T))


def _divergence(teacher: Tensor, student: Tensor) -> Tensor:
    return F.kl_div(
        F.log_softmax(student, dim=1),
        F.log_softmax(teacher, dim=1),
        reduction="batchmean",
        log_target=True,
    )


def feature_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean of 1 - cosine between (n, dim) unit rows and a teacher's, 0 if they are equal.

    Feature distillation on normalised embeddings (CLIP-KD, section 3.2, there with a squared
    distance, which is twice this for unit rows). No gradient flows to the teacher.
    """
    return (1 - (student * teacher.detach()).sum(dim=1)).mean()


def bag_of_words_loss(logits: Tensor, words: Tensor) -> Tensor:
    """How badly a picture predicts the words of its caption, in any order.

    -1/n sum over i of 1/k_i sum over the k_i words w of caption i of log softmax(logits_i)_w: the
    baseline "bag of words prediction" of CLIP's Figure 2 (section 2.3), with the
    multi-class logistic loss of Joulin et al. 2016. ``logits`` (n, vocabulary) are the picture's
    scores of all words, ``words`` (n, vocabulary) bool which of them the caption has; a caption
    without any counts nothing.
    """
    share = words.to(logits.dtype) / words.sum(dim=1, keepdim=True).clamp(min=1)
    return -(share * F.log_softmax(logits, dim=1)).sum(dim=1).mean()


def bag_of_words_scores(logits: Tensor, words: Tensor) -> Tensor:
    """(n, m): how well each of m texts fits each of n pictures, for zero-shot classification.

    The mean of log softmax(logits) over a text's words; ``logits`` (n, vocabulary) and ``words``
    (m, vocabulary) as in ``bag_of_words_loss``. A text of unknown words alone fits nothing: -inf.
    """
    counts = words.sum(dim=1)
    scores = F.log_softmax(logits, dim=1) @ words.to(logits.dtype).T / counts.clamp(min=1)
    return scores.masked_fill(counts == 0, float("-inf"))
