"""What an `Embedder` is made with, in one piece that can be compared, kept and handed on."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arrowembed import _core, models
from arrowembed.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from arrowembed.options import Compute


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The keyword arguments of `Embedder`, which says what each means."""

    device: str = "cpu"
    compute: Compute | None = None
    cache_size: int | None = 10_000
    cache_bytes: int | None = None
    max_seq_length: int | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    truncate_dim: int | None = None
    local_files_only: bool = False
    token: str | bool | None = field(default=None, repr=False, compare=False)
    revision: str | None = None
    verify: bool = False
    preload: bool = False
    lock_memory: bool = False

    def __post_init__(self) -> None:
        # A copy, so that nobody changes it, and sorted, so that equal settings also read alike.
        object.__setattr__(self, "prompts", dict(sorted((self.prompts or {}).items())))

    def check(self) -> None:
        """Checks what can be checked without the model.

        Raises:
            InvalidArgumentError: A setting is outside what is allowed.
        """
        self.config(Path("not-looked-at"))
        if self.truncate_dim is not None and self.truncate_dim < 1:
            raise InvalidArgumentError(
                f"truncate_dim: {self.truncate_dim}; expected 1 or more, or None"
            )

    def find(self, name_or_path: str | PathLike[str]) -> Path:
        """The folder or file of a model.

        Raises:
            ModelNotFoundError: Nowhere; the message lists the places.
        """
        return models.find(
            name_or_path,
            local_files_only=self.local_files_only,
            token=self.token,
            revision=self.revision,
        )

    def config(self, path: Path) -> _core.ModelConfig:
        """What the engine needs to open the model.

        Raises:
            InvalidArgumentError: A setting is outside what is allowed.
        """
        return _core.ModelConfig(
            str(path),
            device=self.device,
            compute=self.compute,
            cache_entries=self.cache_size,
            cache_bytes=self.cache_bytes,
            cache_dir=str(models.home()),
            max_seq_length=self.max_seq_length,
            verify=self.verify,
            preload=self.preload,
            lock_memory=self.lock_memory,
        )

    def to_pickle(self) -> dict[str, Any]:
        """All but the token, which is a secret."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "token"}
