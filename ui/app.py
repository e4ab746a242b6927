"""The page: which controls there are and which question each one asks. No logic."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import gradio as gr

from clipsearch.errors import ClipsearchError, ImageNotFoundError, QueryError
from ui import markup
from ui.questions import queue_questions
from ui.review import add_review
from ui.service import Service
from ui.uploads import Uploads

HERE = Path(__file__).parent
STYLE = HERE / "page.css"
COUNTS = (10, 25, 50, 100, 200)

Dropped = dict[str, Any] | None  # what gradio's drop zone sends: an uploaded file's path
P = ParamSpec("P")
_log = logging.getLogger(__name__)


def theme() -> gr.themes.Base:
    """Fonts of the reader's own system: nothing is fetched from elsewhere."""
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    look = gr.themes.Default(
        primary_hue="teal",
        neutral_hue="slate",
        font=[gr.themes.Font(name) for name in fonts],
        font_mono=[gr.themes.Font(name) for name in ("ui-monospace", "Menlo", "monospace")],
    )
    # Gradio's own shades of these are too pale to read (contrast below 4.5 to 1).
    return look.set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_600",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
        body_text_color_subdued="*neutral_500",
        block_label_text_color="*neutral_600",
    )


def build_page(service: Service, uploads: Uploads) -> gr.Blocks:
    """Lays out the page and wires it to ``service``; dropped pictures arrive in ``uploads``."""
    with gr.Blocks(title="clipsearch", analytics_enabled=False) as page:
        heading = gr.HTML()
        models = gr.HTML(elem_id="models", js_on_load=_script("models.js"))
        with gr.Row(elem_classes="cs-question"):
            with gr.Column(scale=5, min_width=280):
                with gr.Row():
                    words = gr.Textbox(
                        label="Describe the picture",
                        placeholder="a dog on the beach -people after:2023",
                        elem_id="words",
                        lines=1,
                        max_lines=1,
                        autofocus=True,
                        scale=5,
                        min_width=200,
                    )
                    count = gr.Dropdown(
                        COUNTS,
                        value=25,
                        label="Results",
                        elem_id="count",
                        filterable=False,
                        scale=1,
                        min_width=100,
                    )
                go = gr.Button("Search", variant="primary", elem_id="search")
            picture = gr.Image(
                label="Find pictures like this one",
                sources=["upload", "clipboard"],
                buttons=[],
                height=150,
                scale=3,
                min_width=240,
                elem_id="picture",
            )
        liked = gr.Number(visible=False, precision=0)  # the item whose like is on show
        gr.HTML(markup.query_help(), elem_id="query-help")
        status = gr.HTML(elem_id="status")
        results = gr.HTML(elem_id="results", js_on_load=_script("results.js"))
        shown = gr.HTML(elem_id="shown", js_on_load=_script("picture.js"))
        add_review(service)

        def welcome() -> tuple[str, str, str]:
            summary = service.summary()
            body = markup.hint() if summary.items else markup.empty_library(summary)
            return markup.heading(summary), "", body

        def models_now() -> tuple[str, str]:
            summary = service.summary()
            return markup.models(service.models(), summary.library), markup.heading(summary)

        def search(
            text: str, image: Dropped, top: int, everything: bool = False
        ) -> tuple[None, str, str]:
            dropped = _dropped(uploads, image)
            answer = service.search(text, picture=dropped, top=int(top), everything=everything)
            return None, markup.answered(answer), _body(service, answer)

        def similar(item: float, top: int, everything: bool = False) -> tuple[int, str, str]:
            answer = service.search(item=int(item), top=int(top), everything=everything)
            about = _like(service, int(item))
            return int(item), markup.answered(answer, about), _body(service, answer)

        def similar_to_shown(top: int, event: gr.EventData) -> tuple[int, str, str]:
            return similar(event.item, top)

        def again(
            text: str, image: Dropped, item: float | None, top: int, everything: bool = False
        ) -> Any:
            if item is not None:
                return similar(item, top, everything)
            if text.strip() or image:
                return search(text, image, top, everything)
            return [gr.skip()] * 3

        def closest(text: str, image: Dropped, item: float | None, top: int) -> Any:
            return again(text, image, item, top, everything=True)

        def show(event: gr.EventData) -> tuple[Any, str]:
            return gr.skip(), markup.picture(
                service.picture(int(event.item)), float(event.score) if event.score else None
            )

        def judge(text: str, top: int, event: gr.EventData) -> tuple[None, str, str]:
            service.judge(text, int(event.item), relevant=bool(event.relevant))
            answer = service.search(text, with_answers=True, top=int(top))
            return None, markup.answered(answer, ", by your thumbs"), _body(service, answer)

        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        page.load(_told(welcome, 3), None, [heading, status, results], **quiet)
        models.changed(_told(models_now, 2), None, [models, heading], **quiet)
        asked: dict[str, Any] = {
            "outputs": [liked, status, results],
            # Gradio would open the picture by its own rules, or fetch it from an address.
            "preprocess": False,
            "trigger_mode": "always_last",
            "api_visibility": "private",
            "show_progress": "minimal",
            "show_progress_on": status,
        }
        gr.on(
            [words.submit, go.click, picture.upload],
            _told(search, 3),
            [words, picture, count],
            **asked,
        )
        count.input(_told(again, 3), [words, picture, liked, count], **asked)
        results.show_closest(_told(closest, 3), [words, picture, liked, count], **asked)
        results.open_picture(_told(show, 2), None, [status, shown], **quiet)
        shown.judge(_told(judge, 3), [words, count], **asked)
        shown.find_similar(_told(similar_to_shown, 3), count, **asked).then(
            lambda: ("", None), None, [words, picture], **quiet
        )
    queue_questions(page)
    built: gr.Blocks = page
    return built


def _told(answer: Callable[P, Any], outputs: int) -> Callable[P, Any]:
    """Turns whatever goes wrong into the status line, which is always the second last output."""

    @wraps(answer)
    def told(*arguments: P.args, **named: P.kwargs) -> Any:
        kept = [gr.skip()] * outputs
        try:
            return answer(*arguments, **named)
        except QueryError as error:
            kept[-2] = markup.mistake(error)
        except ClipsearchError as error:
            kept[-2] = markup.status(str(error), failed=True)
        except Exception:
            _log.exception("the page could not answer")
            kept[-2] = markup.status(
                "Something went wrong here; the terminal that runs clipsearch says more.",
                failed=True,
            )
        return tuple(kept)

    return told


def _dropped(uploads: Uploads, image: Dropped) -> Path | None:
    """The dropped picture that a question names; ImageNotFoundError for any other file."""
    if not image:
        return None
    if not uploads.holds(str(image["path"])):
        raise ImageNotFoundError(path="by that name among the dropped pictures")
    return Path(image["path"])


def _body(service: Service, answer: Any) -> str:
    if answer.found:
        return markup.gallery(answer)
    summary = service.summary()
    if not summary.items:
        return markup.empty_library(summary)
    return markup.nothing_found(is_cut=answer.is_cut)


def _like(service: Service, item: int) -> str:
    paths = service.picture(item).paths
    return f" like {paths[0].name if paths else f'item {item}'}"


def _script(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
