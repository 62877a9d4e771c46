"""Converts Hugging Face embedding models to arrowembed's model files, checks and measures them."""

__version__ = "0.1.0"
