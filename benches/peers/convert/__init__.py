"""Writes the model in each engine's own format, from its Hugging Face folder.

Each module is a program, `python -m peers.convert.NAME MODEL_FOLDER TARGET_FOLDER`, and runs in the
environment that `peers.models` names for it.
"""
