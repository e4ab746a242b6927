"""Measuring models: retrieval, zero-shot, probes, robustness, wording, speed; for any encoder."""

PARTS = ("retrieval", "zero-shot", "probe", "few-shot", "robustness", "timing")
USUAL = ("retrieval", "zero-shot", "timing")  # a minute's work; the others take longer
