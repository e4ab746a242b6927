"""Plain values to HTML text; everything that comes from outside is escaped here."""

from __future__ import annotations

import shlex
from datetime import datetime
from html import escape as escape_html
from pathlib import Path

from clipsearch.command import clock
from clipsearch.counting import counted
from clipsearch.errors import QueryError
from clipsearch.library.fill_state import FAILED, RUNNING, FillState
from clipsearch.model_names import LOCAL_DIR
from clipsearch.query import parse, words
from clipsearch.query.fields import FILTERS, OPTIONS, TERMS
from clipsearch.sizes import shown_bytes
from indexer.report import duration
from ui.models import Models
from ui.service import Answer, Found, Picture, Summary

_LEAST_RATIO, _GREATEST_RATIO = 0.5, 2.6  # so that a panorama does not take a whole screen


def escape(text: str) -> str:
    """Safe as HTML text and in quoted attributes; file names may hold bytes that are no UTF-8."""
    return escape_html(text.encode("utf-8", "replace").decode())


def heading(summary: Summary) -> str:
    """The page's title line."""
    return (
        "<header class='cs-heading'><h1>clipsearch</h1>"
        f"<p>{counted(summary.items, 'picture')} · private, on your own machine</p></header>"
    )


def models(told: Models, library: Path) -> str:
    """Which model searches, and how far the change to another one is; empty if there is none."""
    said = _change(told, library)
    if told.in_use is not None:
        said = f"Searches use {_model(told.in_use.address)}{said and '. '}{said}"
    if not said:
        return ""
    bar, coming = "", told.coming
    if coming is not None:
        whole = coming.embedded + coming.lacking
        bar = f"<progress max='{whole}' value='{coming.embedded}' aria-hidden='true'></progress>"
    return f"<div class='cs-models'><p>{said}</p>{bar}</div>"


def _change(told: Models, library: Path) -> str:
    """How the change goes, the command that goes on with a stopped one, or why none began."""
    fill, coming = told.fill, told.coming
    refused = _refusal(fill, coming.address if coming is not None else None)
    if refused:
        fill = None
    runs = fill is not None and fill.state == RUNNING
    if coming is None:
        if fill is not None and runs and fill.doing == "tagging":
            return "It gives the photos its tags"
        if fill is not None and runs and fill.doing == "loading":
            return f"{_model(fill.address)} is being loaded"
        return refused  # none where the change was withdrawn, and its process has yet to notice
    name = _model(coming.address)
    far = f"{coming.embedded:,} of {counted(coming.embedded + coming.lacking, 'picture')}"
    if fill is None or not runs:
        why = f" ({escape(fill.error)})" if fill is not None and fill.error else ""
        command = f"clipsearch models use {shlex.quote(coming.address)} --library "
        return (
            f"The change to {name} has stopped at {far}{why}. It goes on with "
            f"<code>{escape(command + shlex.quote(str(library)))}</code>{refused and '. '}{refused}"
        )
    if fill.doing == "waiting":
        return f"{name} waits for another process that writes the library, {far} are done"
    left = f", {duration(fill.seconds_left)} left" if fill.seconds_left is not None else ""
    return f"{name} is being filled, {far}{left}"


def _refusal(fill: FillState | None, coming: str | None) -> str:
    """Why the last change did not begin, in the words of the command; empty if it did."""
    if fill is None or fill.state != FAILED or fill.doing != "loading" or fill.address == coming:
        return ""
    return f"The change to {_model(fill.address)} did not begin: {escape(fill.error or '')}"


def _model(address: str) -> str:
    """An address; of a folder its name, and the whole of it on hovering."""
    name = Path(address).name if address.startswith(LOCAL_DIR) else address
    return f"<b title='{escape(address)}'>{escape(name or address)}</b>"


def status(text: str, *, failed: bool = False) -> str:
    """One line under the question, read out by screen readers when it changes."""
    kind = "cs-status cs-failed" if failed else "cs-status"
    role = "alert" if failed else "status"
    return f"<p class='{kind}' role='{role}'>{escape(text)}</p>"


def answered(answer: Answer, about: str = "") -> str:
    """The status line after a search, such as ``25 of 61 pictures, embedded model, 0.03 s``.

    Where the query was more than plain words, what was understood stands beside it, and below it
    how it could have been meant otherwise.
    """
    count = counted(len(answer.found), "picture")
    is_ranked = any(one.score is not None for one in answer.found)
    if answer.total > len(answer.found) and (answer.is_cut or not is_ranked):
        count = f"{len(answer.found):,} of {counted(answer.total, 'picture')}"
    elapsed = "under 0.01" if answer.elapsed_s < 0.01 else f"{answer.elapsed_s:.2f}"
    line = status(f"{count}{about}, {answer.model or 'no'} model, {elapsed} s")
    line += "".join(f"<p class='cs-aside'>{escape(note)}</p>" for note in answer.notes)
    if all(parse(piece) == words(piece) for piece in answer.understood):
        return line
    pieces = "".join(f"<li><code>{escape(piece)}</code></li>" for piece in answer.understood)
    return f"{line}<ul class='cs-understood' aria-label='Understood as'>{pieces}</ul>"


def mistake(error: QueryError) -> str:
    """What is wrong in a query, and the place with a caret under it."""
    if "line" not in error.fields:
        return status(str(error), failed=True)
    shown = f"{error.fields['line']}\n{error.fields['marked']}"
    return (
        f"{status(str(error.fields['message']), failed=True)}"
        f"<pre class='cs-mistake'>{escape(shown)}</pre>"
    )


def query_help() -> str:
    """What can be typed, folded away until it is asked for."""
    groups = "".join(
        f"<tr><th colspan='2' scope='colgroup'>{title}</th></tr>"
        + "".join(
            f"<tr><td><code>{escape(entry.example)}</code></td><td>{escape(entry.help)}</td></tr>"
            for entry in entries
        )
        for title, entries in (
            ("Ranked by", TERMS),
            ("Only those; with - before it, only the others", FILTERS),
            ("The answer", OPTIONS),
        )
    )
    return (
        "<details class='cs-help'><summary>What a query can say</summary>"
        "<p>Words are searched for as they are. <code>-people</code> is what should not be there, "
        "<code>+snow</code> what should be there, too, <code>0.5:&quot;warm light&quot;</code> "
        "counts half, and <code>&quot;quotes&quot;</code> make anything literal. "
        "Commas mean or: <code>format:png,webp</code>.</p>"
        f"<table>{groups}</table></details>"
    )


def hint() -> str:
    """What stands where results will be, before the first question."""
    return _note(
        "What are you looking for?",
        "Describe it in your own words, <em>a dog on the beach</em>, drop a picture to find others "
        "like it, or do both at once.",
    )


def empty_library(summary: Summary) -> str:
    """What stands there while the library holds nothing, and the command that changes it."""
    library = escape(str(summary.library))
    return _note(
        "This library is empty",
        "Add a folder of photos in a terminal, then search here. The page notices by itself:"
        f"<code>clipsearch index FOLDER --library {library}</code>",
    )


def nothing_found(*, is_cut: bool) -> str:
    """What stands there when nothing passes, or nothing is relevant: how to see the closest."""
    if not is_cut:
        return _note("Nothing found", "No picture here passes what the query asks for.")
    return _note(
        "Nothing found",
        "No picture here seems to show that. Try other words, or index more folders."
        "<br><button type='button' class='cs-closest'>Show the closest anyway</button>",
    )


def _note(title: str, html: str) -> str:
    return f"<div class='cs-note'><h2>{escape(title)}</h2><p>{html}</p></div>"


def gallery(answer: Answer) -> str:
    """A grid of thumbnails, each a button that carries its item id and score."""
    tiles = "".join(_tile(found) for found in answer.found)
    return f"<ul class='cs-grid' aria-label='Results, best first'>{tiles}</ul>"


def _tile(found: Found) -> str:
    name = escape(found.path.name)
    badge, score = "", ""
    if found.score is not None:
        score = (
            f"<span class='cs-score' aria-label='score {found.score:.3f}'>{found.score:.3f}</span>"
        )
    if found.time_s is not None:
        name = f"{name} at {clock(found.time_s)}"
        badge = f"<span class='cs-time'>▶ {clock(found.time_s)}</span>"
    ratio = min(max(found.width / max(found.height, 1), _LEAST_RATIO), _GREATEST_RATIO)
    return (
        f"<li style='--ratio:{ratio:.3f}'>"
        f"<button type='button' class='cs-hit' data-item='{found.item}' "
        f"data-score='{'' if found.score is None else f'{found.score:.8f}'}' title='{name}'>"
        f"<img src='{_address('thumb', found)}' alt='{name}' loading='lazy' decoding='async'>"
        f"{badge}{score}</button></li>"
    )


def picture(shown: Picture, score: float | None) -> str:
    """The full picture with what is known about it, and what can be done from there."""
    path = shown.paths[0] if shown.paths else None
    name = escape(path.name) if path else f"item {shown.item}"
    facts = "".join(
        f"<dt>{escape(term)}</dt><dd>{value}</dd>" for term, value in _facts(shown, score)
    )
    return (
        f"<dialog class='cs-picture' aria-label='{name}' data-item='{shown.item}'>"
        "<button type='button' class='cs-close' aria-label='Close'>×</button>"
        f"<figure>{_seen(shown, name)}</figure>"
        f"<section><h2>{name}</h2><dl>{facts}</dl>"
        "<div class='cs-actions'>"
        f"<button type='button' class='cs-similar' data-item='{shown.item}'>More like this</button>"
        f"<button type='button' class='cs-thumb' data-item='{shown.item}' data-relevant='1' "
        "title='This is what I meant' aria-label='It fits'>Fits</button>"
        f"<button type='button' class='cs-thumb' data-item='{shown.item}' data-relevant='0' "
        "title='This is not what I meant' aria-label='It does not fit'>Does not fit</button>"
        f"<a href='original/{shown.item}' target='_blank' rel='noopener'>Original</a>"
        "</div><div class='cs-steps'>"
        "<button type='button' data-step='-1' aria-label='Previous picture'>←</button>"
        "<button type='button' data-step='1' aria-label='Next picture'>→</button>"
        "</div></section></dialog>"
    )


def _seen(shown: Picture, name: str) -> str:
    """The picture, or the video, ready to play from the moment that was found."""
    if shown.time_s is None:
        return f"<img src='{_address('view', shown)}' alt='{name}'>"
    start = f"{shown.time_s:.3f}"
    return (
        f"<video controls playsinline preload='metadata' poster='{_address('view', shown)}' "
        f"src='original/{shown.item}#t={start}' data-start='{start}' aria-label='{name}'></video>"
    )


def _address(kind: str, one: Found | Picture) -> str:
    """Where a picture is, by content where that is known: then it is asked for once."""
    return f"{kind}/{one.item}/{one.version}" if one.version else f"{kind}/{one.item}"


def _facts(shown: Picture, score: float | None) -> list[tuple[str, str]]:
    facts: list[tuple[str, str]] = []
    if score is not None:
        facts.append(("Score", f"{score:.3f}"))
    if shown.taken_at:
        by_name = shown.is_dated_by_name
        facts.append(("Taken", escape(_date(shown.taken_at, by_name=by_name))))
    if shown.time_s is not None:
        facts.append(("At", clock(shown.time_s)))
    if shown.captions:
        facts.append(("Caption", "<br>".join(escape(text) for text in shown.captions)))
    for term, text in (
        ("Tags", ", ".join(shown.tags)),
        ("Tags by the model", ", ".join(shown.model_tags)),
        ("Place", shown.place),
        ("Camera", shown.camera),
        ("Exposure", shown.exposure),
    ):
        if text:
            facts.append((term, escape(text)))
    facts.append(("Dimensions", f"{shown.width} × {shown.height}"))
    facts.append(("File", f"{escape(shown.format)}, {shown_bytes(shown.size_bytes)}"))
    label = "Path" if len(shown.paths) < 2 else "Paths"
    facts.append((label, "<br>".join(_path(path) for path in shown.paths) or "no longer there"))
    return facts


def _path(path: Path) -> str:
    return f"<span class='cs-path'>{escape(str(path))}</span>"


def _date(taken_at: str, *, by_name: bool) -> str:
    """``7 May 2024, 18:03`` from ISO 8601; the text itself where it is not.

    Midnight in a day that a file's name told is no time of day.
    """
    try:
        moment = datetime.fromisoformat(taken_at)
    except ValueError:
        return taken_at
    day = f"{moment.day} {moment:%B %Y}"
    if not by_name:
        return f"{day}, {moment:%H:%M}"
    has_time = (moment.hour, moment.minute, moment.second) != (0, 0, 0)
    return f"{day}, {moment:%H:%M} (by its file name)" if has_time else f"{day} (by its file name)"
