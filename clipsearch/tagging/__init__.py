"""Tags in anyone's own words: a vocabulary, templates, cut-offs, and a review that teaches them."""

from clipsearch.tagging.reporting import TagReport
from clipsearch.tagging.run import tag
from clipsearch.tagging.vocabulary import Concept, Group, Vocabulary, everyday, read_vocabulary

__all__ = [
    "Concept",
    "Group",
    "TagReport",
    "Vocabulary",
    "everyday",
    "read_vocabulary",
    "tag",
]
