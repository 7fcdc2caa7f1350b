"""Train Embedding: trains an embedding with the model that the workflow has loaded."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io, ui
from comfy_execution.graph import ExecutionBlocker

from ..ti_train.data.dataset import encode_pictures
from ..ti_train.device import out_of_memory_as_user_error
from ..ti_train.drawing.loss_plot import loss_plot
from ..ti_train.formats import names_file
from ..ti_train.hosts.comfy.host import ComfyHost
from ..ti_train.hosts.comfy.placeholders import with_embeddings
from ..ti_train.prompts import PLACEHOLDER
from ..ti_train.training.config import PRESETS, PRESETS_HELP, TrainConfig
from ..ti_train.training.widgets import values_of
from .embeddings.load import LoadEmbedding, embedding_path
from .files import EXISTING, place
from .option_inputs import option_input
from .option_names import TRAIN_EMBEDDING
from .run import run_training
from .sockets import CATEGORY, EmbeddingSocket, OptionsSocket
from .tensors import side_to_train_at, to_batch, to_images, to_masks, to_pictures

DOES_NOT_FIT = "Give a lower resolution in Training Options, or close other programs that use the GPU."
HERE: dict[str, dict[str, Any]] = {
    "learning_rate": {"max": 1.0, "round": 0.000001},
    "seed": {"control_after_generate": False},  # else the page sets a new seed at every Run, which trains again
    "preview_every": {"default": 100},
}


class TrainEmbedding(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TITrain_TrainEmbedding",
            display_name="Train Embedding",
            category=CATEGORY,
            description="Trains an embedding (textual inversion) from 3 to 5 images with the loaded model. The model"
            " itself does not change.",
            is_input_list=True,
            is_output_node=True,
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
            inputs=[
                io.Model.Input(
                    "model", tooltip="The model to train the embedding for, with the LoRAs that you sample with."
                ),
                io.Clip.Input("clip", tooltip="The model's text encoder. A clip skip set before this node is used."),
                io.Vae.Input("vae", tooltip="The VAE that encodes the images and decodes the previews."),
                io.Image.Input(
                    "images",
                    tooltip="3 to 5 images of one subject or one style: a batch, or a list of images of any sizes.",
                ),
                *option_inputs(),
                io.Combo.Input(
                    "if_exists",
                    options=list(EXISTING),
                    default=EXISTING[0],
                    tooltip="What to do if the name exists. new number: train name-2, name-3 ...; continue: resume "
                    "an interrupted run, with the same result as without the interruption; replace: overwrite the "
                    "file.",
                ),
                io.Boolean.Input(
                    "save",
                    default=True,
                    tooltip="Save the embedding in the embeddings folder, so that embedding:name works in any "
                    "prompt. Off: save it in ComfyUI's temporary folder.",
                ),
                io.String.Input(
                    "captions",
                    optional=True,
                    force_input=True,
                    tooltip="What each image shows besides the embedding: one text per image, or one for all.",
                ),
                OptionsSocket.Input("options", optional=True, tooltip="More settings, from Training Options."),
                io.Mask.Input(
                    "masks",
                    optional=True,
                    tooltip="White is trained, black is ignored: one mask per image, or one for all. An empty mask, "
                    "as Load Image outputs it, means the whole image.",
                ),
            ],
            outputs=[
                EmbeddingSocket.Output("embedding", display_name="embedding", tooltip="The trained embedding."),
                io.Clip.Output(
                    "CLIP", display_name="clip", tooltip="A CLIP in which * and <name> are the trained embedding."
                ),
                io.Image.Output(
                    "previews", display_name="previews", tooltip="All previews, in the order of their steps."
                ),
                io.Image.Output(
                    "loss_plot",
                    display_name="loss plot",
                    tooltip="Watch the validation loss: it is computed on the same images, noise and timesteps every"
                    " time.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, initial_text: list[str] | None = None, **_: Any) -> str:
        """The digest of the initial embedding file: when the file changes, the initial vectors do."""
        (text,) = initial_text or [""]  # None: the text comes from another node
        return str(LoadEmbedding.fingerprint_inputs(text)) if names_file(text) else ""

    @classmethod
    def execute(
        cls,
        images: list[torch.Tensor],
        captions: list[str] | None = None,
        masks: list[torch.Tensor] | None = None,
        **lists: list[Any],
    ) -> Any:
        given = {key: values[0] for key, values in lists.items()}
        with torch.inference_mode(False), out_of_memory_as_user_error(DOES_NOT_FIT):
            return cls.train(images, captions or [], masks or [], **given)

    @classmethod
    def train(
        cls,
        images: list[torch.Tensor],
        captions: list[str],
        masks: list[torch.Tensor],
        model: Any,
        clip: Any,
        vae: Any,
        name: str,
        preset: str,
        if_exists: str,
        save: bool,
        options: dict[str, Any] | None = None,
        **inputs: Any,
    ) -> Any:
        folder, file, resume = place(name, if_exists, save)
        given = values_of({TRAIN_EMBEDDING[key]: value for key, value in inputs.items()})
        with_captions = "style-captions" if preset == "Style" else "captions"
        here = {
            "name": file,
            "init": initial(given["init"]),
            "learning_rate": given["learning_rate"] or None,
            "templates": with_captions if any(map(str.strip, captions)) else None,
        }
        config = TrainConfig.from_preset(preset, **given | here | (options or {}))
        host = ComfyHost(model, clip, vae, config.guidance)
        pictures = to_images(images)
        sizes = [picture.size for picture in pictures]
        side = config.resolution or side_to_train_at(sizes, host.resolution, config.square)
        used = to_pictures(pictures, side, config.square, captions, to_masks(masks))
        dataset = encode_pictures(host, used, config.flip)
        embedding, session, sampled = run_training(host, dataset, config, folder, resume, cls.hidden)

        plot = to_batch([loss_plot(session.steps, file)])
        previews = to_batch(sampled) if sampled else None
        vectors = embedding.fitted_to(host.widths)
        trained = with_embeddings(clip, {placeholder: vectors for placeholder in (PLACEHOLDER, f"<{name}>")})
        shown = plot if previews is None else previews
        outputs = (embedding, trained, ExecutionBlocker(None) if previews is None else previews, plot)
        return io.NodeOutput(*outputs, ui=ui.PreviewImage(shown, cls=cls))


def option_inputs() -> list[io.Input]:
    """The most common options, and the preset for the others."""
    inputs = [option_input(name, option, **HERE.get(name, {})) for name, option in TRAIN_EMBEDDING.items()]
    preset = io.Combo.Input("preset", options=list(PRESETS), default="Balanced", tooltip=PRESETS_HELP)
    inputs.insert(list(TRAIN_EMBEDDING).index("steps"), preset)
    return inputs


def initial(text: str) -> str:
    """The path of an embedding file in the embeddings folder; any other text as it is."""
    return str(embedding_path(text)) if names_file(text) else text
