"""How well and how fast stores find paragraphs that answer questions."""
