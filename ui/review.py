"""The page's review of tags: pictures whose tags are least sure, and two buttons for each."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from clipsearch.errors import ClipsearchError
from clipsearch.tagging.review import Doubt
from ui import markup
from ui.service import Service

SHOWN = 24
_SCRIPT = Path(__file__).with_name("review.js")
_log = logging.getLogger(__name__)


def add_review(service: Service) -> None:
    """Adds the review to the page that is being laid out, folded up until it is wanted."""
    with gr.Accordion("Review tags", open=False, elem_id="review"):
        gr.HTML(
            "<p class='cs-status'>Say whether a tag fits: the nearest to its cut-off come first, "
            "and each answer moves the cut-off a little, for all pictures at once.</p>"
        )
        with gr.Row():
            tag = gr.Textbox(
                label="Tag", placeholder="all tags", lines=1, max_lines=1, elem_id="review-tag"
            )
            ask = gr.Button("Ask me", variant="primary", elem_id="review-ask")
        told = gr.HTML(elem_id="review-status")
        grid = gr.HTML(elem_id="review-grid", js_on_load=_SCRIPT.read_text(encoding="utf-8"))

    def show(name: str) -> tuple[str, str]:
        queue = service.doubts(name.strip() or None, SHOWN)
        return markup.status("" if queue else "Nothing to ask."), doubts(queue)

    def answer(name: str, event: gr.EventData) -> tuple[str, str]:
        accepted = bool(event.accepted)
        service.answer_doubt(int(event.item), str(event.tag), accepted=accepted)
        _, body = show(name)
        word = "fits" if accepted else "does not fit"
        return markup.status(f"Kept: '{event.tag}' {word}."), body

    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal"}
    gr.on([ask.click, tag.submit], _told(show), tag, [told, grid], **quiet)
    grid.answer(_told(answer), tag, [told, grid], **quiet)


def doubts(queue: list[Doubt]) -> str:
    """A grid of thumbnails, each with its tag as a question and two buttons."""
    return f"<ul class='cs-grid cs-doubts'>{''.join(map(_card, queue))}</ul>"


def _card(doubt: Doubt) -> str:
    name, tag = markup.escape(doubt.path.name), markup.escape(doubt.tag)
    buttons = "".join(
        f"<button type='button' class='cs-answer' data-item='{doubt.item}' data-tag='{tag}' "
        f"data-accepted='{value}' aria-label='{tag}: {word}'>{escape(word)}</button>"
        for value, word in (("1", "Yes"), ("", "No"))
    )
    return (
        f"<li><img src='thumb/{doubt.item}' alt='{name}' title='{name}' loading='lazy'>"
        f"<p>{tag}? <span>{doubt.probability:.0%}</span></p><div>{buttons}</div></li>"
    )


def _told(reply: Callable[..., tuple[str, str]]) -> Callable[..., tuple[Any, Any]]:
    """Turns whatever goes wrong into the review's status line; the grid stays."""

    @wraps(reply)
    def told(*arguments: Any) -> tuple[Any, Any]:
        try:
            return reply(*arguments)
        except ClipsearchError as error:
            return markup.status(str(error), failed=True), gr.skip()
        except Exception:
            _log.exception("the review could not answer")
            text = "Something went wrong here; the terminal that runs clipsearch says more."
            return markup.status(text, failed=True), gr.skip()

    return told
