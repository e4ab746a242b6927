"""What a fine-tuned model is, for people it is given to, as Markdown."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from clipsearch import __version__
from clipsearch.encoders.registry import known_models
from clipsearch.model_names import LOCAL_DIR
from training.evaluation import CUTOFFS
from training.loop import Recipe

if TYPE_CHECKING:
    from training.run import RunReport


def model_card(
    report: RunReport, *, model: str, weights_sha256: str, captions: int, forms: str, recipe: Recipe
) -> str:
    """The card of what a run exported.

    It names no file and quotes no caption, so that it can go wherever the model goes.
    """
    before, after, guard = report.before, report.after, report.forgetting
    rows = [
        (f"R@{k}, caption to picture", f"{before.text_to_image[k]:.1f} %",
         f"{after.text_to_image[k]:.1f} %")
        for k in CUTOFFS
    ]  # fmt: skip
    rows += [
        (f"R@{k}, picture to caption", f"{before.image_to_text[k]:.1f} %",
         f"{after.image_to_text[k]:.1f} %")
        for k in CUTOFFS
    ]  # fmt: skip
    rows.append(("median rank", f"{before.median_rank:.1f}", f"{after.median_rank:.1f}"))
    rows.append(("R@10 on general pictures", f"{guard.before:.1f} %", f"{guard.after:.1f} %"))
    table = "\n".join(f"| {name} | {old} | {new} |" for name, old, new in rows)
    few = (
        f"\nOnly {report.held_out} pictures are held out, so the figures are rough.\n"
        if report.held_out < 50
        else ""
    )
    seen = (
        "The exported weights were then trained anew, with the same recipe, on all of the "
        "pictures; only their forgetting was measured."
        if report.trained_on_all
        else "The exported weights are those that were judged."
    )
    use = (
        "    clipsearch index FOLDER --model local-dir:THIS_FOLDER\n\n"
        "or with open_clip:\n\n"
        '    model, preprocess = open_clip.create_model_from_pretrained("local-dir:THIS_FOLDER")\n'
        '    tokenizer = open_clip.get_tokenizer("local-dir:THIS_FOLDER")\n'
        if report.export
        else "Nothing was exported: no mixture of the old and the new weights was both better and "
        "safe.\n"
    )
    trained = _paragraph(
        f"{report.pictures:,} pictures with {captions:,} captions, from {forms}; "
        f"{report.skipped:,} rows could not be used. {report.held_out:,} of the pictures were held "
        "out to judge on."
    )
    method = _paragraph(
        f"Learning: {recipe.learn}; {recipe.steps:,} steps of {recipe.batch_size} pictures; "
        f"highest learning rate {recipe.lr:g}; loss: {recipe.loss}; seed {recipe.seed}. "
        f"{report.alpha:.0%} of what was learned is mixed into the old weights (WiSE-FT)."
    )
    seen = _paragraph(
        f"{seen} General pictures: {guard.trust}. Without the mixing, R@10 there would be "
        f"{guard.unguarded:.1f} %."
    )
    return f"""# {_short(model)}, fine-tuned

A model that finds pictures by words, fine-tuned by clipsearch {__version__} from `{_short(model)}`
(weights {weights_sha256[:16]}).

## Trained on

{trained}

{method}

## Measured

On the held-out pictures, with weights that never saw them, before and after:

| | before | after |
|---|---|---|
{table}
{few}
{seen}

## Use

{use}
## Limits

The held-out pictures are from the same collection as the others: on pictures of other people and
places it may gain nothing. What the old model could not do, such as counting, reading, or telling
left from right, this one cannot either. Weights can give away what they were trained on: if the
pictures or captions are private, so is the model.

## Licence

{_licence(model)}
"""


def _paragraph(text: str) -> str:
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def _short(model: str) -> str:
    """The address without the path of somebody's folder."""
    if model.startswith(LOCAL_DIR):
        return f"{LOCAL_DIR}{model.removeprefix(LOCAL_DIR).rstrip('/').rpartition('/')[2]}"
    return model


def _licence(model: str) -> str:
    for entry in known_models():
        if model in (entry.address, f"{entry.address}/openai"):
            return (
                f"The old weights are under: {entry.licence}. It holds for what is made from them."
            )
    return (
        "That of the old weights holds. clipsearch does not know it: see the card of "
        f"`{_short(model)}`."
    )
