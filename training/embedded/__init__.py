"""The recipe of the dual encoder that ships with the package; run it with ``make embedded-model``."""
