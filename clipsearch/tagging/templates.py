"""Prompt templates: the sentences that a concept's name is put into, by domain."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from clipsearch.errors import VocabularyError
from clipsearch.tagging.vocabulary import Concept, Vocabulary
from clipsearch.user_paths import expand_user

DEFAULT_DOMAIN = "photo"
NAME = "{}"
MAX_TEMPLATES = 200

Templates = tuple[str, ...]


@cache
def built_in_templates() -> Mapping[str, Templates]:
    """The templates of each domain, from ``templates.txt``."""
    file = Path(__file__).with_name("templates.txt")
    domains: dict[str, list[str]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            domains[line.strip("[]")] = []
        elif line and not line.startswith("#"):
            domains[list(domains)[-1]].append(line)
    return {domain: tuple(lines) for domain, lines in domains.items()}


def read_templates(name_or_file: str) -> Templates:
    """The templates of a domain, or those of a text file, one a line with {} for the name.

    VocabularyError if there is neither, or a line has no {}.
    """
    known = built_in_templates()
    if name_or_file in known:
        return known[name_or_file]
    path = expand_user(name_or_file)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise VocabularyError(
            place=f"Templates '{name_or_file}'",
            reason="there is no domain and no text file of that name",
            advice=f"Domains are: {', '.join(known)}.",
        ) from error
    found: list[str] = []
    for number, line in enumerate(map(str.strip, lines), 1):
        if line and not line.startswith("#"):
            if NAME not in line:
                raise VocabularyError(
                    place=f"{path}, line {number}",
                    reason="it has no {} for the name",
                    advice="Write templates like: a photo of a {}.",
                )
            found.append(line)
    if not 1 <= len(found) <= MAX_TEMPLATES:
        raise VocabularyError(
            place=path,
            reason=f"it holds {len(found)} templates, not 1 to {MAX_TEMPLATES}",
            advice="Write one a line.",
        )
    return tuple(found)


def templates_of(vocabulary: Vocabulary, path: Path | str = "") -> list[Templates]:
    """For each concept the templates that it, or what it is below, asks for.

    VocabularyError, naming the line, for a domain that there is not.
    """
    known = built_in_templates()
    found = []
    for concept in vocabulary.concepts:
        domain = concept.domain or DEFAULT_DOMAIN
        if domain not in known:
            raise VocabularyError(
                place=f"{path or vocabulary.name}, line {concept.line}",
                reason=f"there are no templates @{domain}",
                advice=f"There are: {', '.join('@' + name for name in known)}.",
            )
        found.append(known[domain])
    return found


def wordings(concept: Concept, templates: Templates) -> list[list[str]]:
    """For the name and each synonym, all sentences."""
    return [[template.replace(NAME, text) for template in templates] for text in concept.wordings]
