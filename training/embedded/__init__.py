"""The recipe of the dual encoder that ships with the package: ``make embedded-model``."""
