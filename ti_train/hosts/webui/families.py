"""The family of a WebUI's loaded model, detected from its text encoders."""

from __future__ import annotations

from typing import Any, NoReturn

from torch import Tensor, nn

from ...errors import UserError

ENCODERS = {(768,): ("clip_l",), (1024,): ("clip_h",), (768, 1280): ("clip_l", "clip_g")}  # widths -> names


def token_table(transformer: nn.Module) -> Tensor:
    """A text encoder's input embedding, [V, width]. Not to be cached: the WebUI may move it."""
    lookups = (part for name, part in transformer.named_modules() if name.rpartition(".")[2] == "token_embedding")
    lookup: Any = next(lookups)  # the WebUI's wrapper of the model's lookup
    table: Tensor = lookup.wrapped.weight
    return table


def named_encoders(model: Any) -> dict[str, Any]:
    """Name -> text encoder of a model of A1111's class. Raises UserError for unsupported families."""
    conditioner = getattr(model, "conditioner", None)
    embedders: list[Any] = list(conditioner.embedders) if conditioner else [getattr(model, "cond_stage_model", None)]
    encoders = [embedder for embedder in embedders if hasattr(embedder, "encode_embedding_init_text")]
    names = ENCODERS.get(tuple(int(token_table(encoder.wrapped).shape[1]) for encoder in encoders))
    if names is None:
        refuse(model)
    return dict(zip(names, encoders, strict=True))


def refuse(model: Any) -> NoReturn:
    raise UserError(
        f"The loaded model ({type(model).__name__}) is not supported. In a WebUI, embeddings can be trained on Stable "
        "Diffusion 1, 2 and XL (base model). Choose a checkpoint of one of these families."
    )
