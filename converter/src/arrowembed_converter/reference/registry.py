"""Which file computes which `model_type`."""

from arrowembed_converter.reference.bert import Bert, Roberta
from arrowembed_converter.reference.common import Architecture, Config
from arrowembed_converter.reference.distilbert import DistilBert
from arrowembed_converter.reference.gemma3 import Gemma3
from arrowembed_converter.reference.jina_bert_v2 import JinaBertV2
from arrowembed_converter.reference.modernbert import ModernBert
from arrowembed_converter.reference.mpnet import MPNet
from arrowembed_converter.reference.nomic_bert import NomicBert
from arrowembed_converter.reference.qwen2 import Qwen2
from arrowembed_converter.reference.qwen3 import Qwen3

ARCHITECTURES: dict[str, type[Architecture]] = {
    "bert": Bert,
    "distilbert": DistilBert,
    "gemma3_text": Gemma3,
    "modernbert": ModernBert,
    "mpnet": MPNet,
    "nomic_bert": NomicBert,
    "qwen2": Qwen2,
    "qwen3": Qwen3,
    "roberta": Roberta,
    "xlm-roberta": Roberta,
}
"""By the `model_type` of config.json."""


def architecture_of(config: Config) -> type[Architecture]:
    """The architecture of a configuration; raises `UnsupportedReferenceError` for others."""
    model_type = config.get("model_type")
    # Jina BERT 2 calls itself bert.
    if model_type == "bert" and config.get("position_embedding_type") == "alibi":
        return JinaBertV2
    if model_type not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise config.unsupported(f"the reference computes {known}; this is {model_type!r}")
    return ARCHITECTURES[model_type]
