"""The Hugging Face hub, through huggingface_hub."""

from pathlib import Path

from arrowembed.errors import ModelIOError
from arrowembed.models import dense_without_weights

NEEDED_FILES = (
    "config.json",
    "config_sentence_transformers.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-?????-of-?????.safetensors",
    "modules.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "[0-9]_*/config.json",
    "[0-9]_*/model.safetensors",
)
"""What a model is made of; nothing else of a repository is fetched."""

PICKLED_WEIGHTS = ("pytorch_model*.bin", "pytorch_model.bin.index.json")
"""Weights that only a conversion reads, and only where there are no others."""

PICKLED_MODULES = ("[0-9]_*/pytorch_model.bin",)
"""The same of Dense modules."""


def download(
    repo_id: str,
    *,
    token: str | bool | None = None,
    revision: str | None = None,
    pickled: bool = False,
) -> tuple[Path | None, str]:
    """Fetches a model into the Hugging Face cache.

    `HF_ENDPOINT`, `HF_HOME` and the stored login are honoured, as huggingface_hub does. `pickled`
    takes torch's own weights where there are no others.

    Returns:
        Its folder, or None and the reason why there is none.

    Raises:
        ModelIOError: The hub has it, but it could not be fetched.
    """
    try:
        from huggingface_hub import errors, snapshot_download  # noqa: PLC0415 - optional, slow
    except ModuleNotFoundError:
        return None, 'not asked, that needs huggingface_hub: pip install "arrowembed[hub]"'

    def fetch(patterns: tuple[str, ...]) -> Path:
        return Path(
            snapshot_download(
                repo_id, revision=revision, token=token, allow_patterns=list(patterns)
            )
        )

    try:
        folder = fetch(NEEDED_FILES)
        found = any(folder.glob("model*.safetensors"))
        if pickled and not found:
            folder = fetch((*NEEDED_FILES, *PICKLED_WEIGHTS))
            found = any(folder.glob("pytorch_model*.bin"))
        if pickled and found and dense_without_weights(folder):
            folder = fetch(PICKLED_MODULES)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        return None, _why_refused(error, revision)
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        return None, f"could not be reached ({_first_line(error)})"
    except (errors.HfHubHTTPError, OSError) as error:
        raise ModelIOError(f"fetching {repo_id} from the hub: {_first_line(error)}") from error
    if found:
        return folder, ""
    return None, "has no model.safetensors; other forms of weights are not read"


def _why_refused(error: Exception, revision: str | None) -> str:
    match type(error).__name__:
        case "RevisionNotFoundError":
            return f"has no revision {revision!r}"
        case "GatedRepoError":
            return "access is restricted; ask for it on the hub, then pass token=..."
        case _:
            return "no such repository, or a private one that needs token=..."


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
