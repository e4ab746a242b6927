"""Training: pairs of pictures and captions in, a model that the core can load out."""
