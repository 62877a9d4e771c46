"""What the server says of itself before anything is asked of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

NAME: Final = "arrowembed"
TITLE: Final = "Text embeddings"

_ALWAYS: Final = """\
Measures on this machine how near texts are in meaning. Texts are not sent anywhere.
- similarity compares texts with each other, or ranks candidates for a question.
- embed makes vectors, and by default gives a reference that the other tools take in place of texts.
"""

_STORE: Final = """\
There is a memory that outlasts this conversation:
- search finds what was remembered, by meaning; ask it before you say that you do not know.
- remember keeps texts under ids; forget takes them out.
The resource arrowembed://store says how much there is.
"""

_READ_ONLY: Final = """\
There is a collection of texts:
- search finds texts in it, by meaning; ask it before you say that you do not know.
The resource arrowembed://store says how much there is.
"""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a client is told first; it does not depend on the model or on what is in the store."""

    version: str
    """Of arrowembed."""
    has_store: bool
    read_only: bool = False

    @property
    def instructions(self) -> str:
        """For the language model: what the server is for."""
        if not self.has_store:
            return _ALWAYS
        return _ALWAYS + (_READ_ONLY if self.read_only else _STORE)
