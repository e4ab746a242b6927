"""Captions from many forms: one reader a form, which yields where, a picture, and what was said."""
