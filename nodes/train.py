"""Train Embedding: trains an embedding with the model that the workflow has loaded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import folder_paths
import torch
from comfy_api.latest import io, ui
from comfy_execution.graph import ExecutionBlocker

from ..ti_train.data.dataset import encode_pictures
from ..ti_train.device import out_of_memory_as_user_error
from ..ti_train.drawing.loss_plot import loss_plot
from ..ti_train.hosts.comfy.host import ComfyHost
from ..ti_train.hosts.comfy.placeholders import with_embeddings
from ..ti_train.hosts.comfy.sampling import check_names
from ..ti_train.names import candidates, file_names, names_file, with_paths
from ..ti_train.prompts import Templates, placeholders_of
from ..ti_train.text import Remarks
from ..ti_train.training.config import OPTIONS, PRESETS, PRESETS_HELP, PREVIEWS_EVERY, TrainConfig
from ..ti_train.training.loop import identity
from ..ti_train.training.sides import side_for
from ..ti_train.training.widgets import values_of
from .embeddings.load import LoadEmbedding, embedding_path
from .files import EXISTING, asked_for, place
from .option_inputs import option_input
from .option_names import OPTIONAL_IN_TRAIN_EMBEDDING, TRAIN_EMBEDDING
from .remarks import show
from .run import run_training, use_finished
from .sockets import CATEGORY, EmbeddingSocket, OptionsSocket, searched
from .tensors import side_to_train_at, to_batch
from .training_data import TrainingData
from .upstream import lost_on_the_way

SMALL = 100_000_000  # parameters of a denoiser: fewer than any published model of these families has
HERE: dict[str, dict[str, Any]] = {
    "learning_rate": {"max": 1.0, "round": 0.000001},
    "seed": {"control_after_generate": False},  # else the page sets a new seed at every Run, which trains again
    "preview_every": {"default": PREVIEWS_EVERY},
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
            **searched("textual inversion", "embedding training", "train textual inversion", "train token", "ti train"),
            is_input_list=True,
            is_output_node=True,
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
            inputs=[
                io.Model.Input(
                    "model", tooltip="The model to train the embedding for, with the LoRAs that you sample with."
                ),
                io.Clip.Input("clip", tooltip="The model's text encoder. A clip skip set before this node is used."),
                io.Vae.Input("vae", tooltip="The VAE that encodes the images and decodes the previews."),
                io.Image.Input(
                    "images",
                    tooltip="3 to 5 images of one subject or one style: a batch, or a list of images of any sizes. "
                    "Load Training Images sends captions and masks along.",
                ),
                *required_options(),
                io.Combo.Input(
                    "if_exists",
                    options=list(EXISTING),
                    default=EXISTING[0],
                    tooltip="What to do if the name exists. new number: train name-2, name-3 ...; continue: resume "
                    "an interrupted run, with the same result as without the interruption; replace: overwrite the "
                    "file; use it if it is there: do not train again what was trained with the same settings, model "
                    "and images, resume it if it was interrupted, and else train a new number. To train a finished "
                    "embedding further, enter its file as initial_text.",
                ),
                io.Boolean.Input(
                    "save",
                    default=True,
                    tooltip="Save the embedding in the embeddings folder, for embedding:name in any prompt and for "
                    "Load Embedding. Off: save it in ComfyUI's temporary folder.",
                ),
                io.String.Input(
                    "captions",
                    optional=True,
                    force_input=True,
                    tooltip="What each image shows besides the embedding: one text per image, or one for all. Used "
                    "instead of the captions that come with the images.",
                ),
                OptionsSocket.Input("options", optional=True, tooltip="More settings, from Training Options."),
                io.Mask.Input(
                    "masks",
                    optional=True,
                    tooltip="White is trained, black is ignored: one mask per image, or one for all. An empty mask, "
                    "as Load Image outputs it, means the whole image. Used instead of the masks that come with the "
                    "images.",
                ),
                *optional_options(),
            ],
            outputs=[
                EmbeddingSocket.Output("embedding", display_name="embedding", tooltip="The trained embedding."),
                io.Clip.Output(
                    "CLIP", display_name="clip", tooltip="A CLIP in which * and <name> are the trained embedding."
                ),
                io.Image.Output(
                    "previews",
                    display_name="previews",
                    tooltip="The previews, in the order of their steps. Of a long run an evenly spaced part, at most"
                    " 512 MB.",
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
        files = [initial_file(each) for each in candidates(text) if names_file(each)]
        return "".join(str(LoadEmbedding.fingerprint_inputs(file)) for file in files)

    @classmethod
    def execute(
        cls,
        images: list[torch.Tensor],
        captions: list[str] | None = None,
        masks: list[torch.Tensor] | None = None,
        **lists: list[Any],
    ) -> Any:
        given = {key: values[0] for key, values in lists.items()}
        with torch.inference_mode(False), out_of_memory_as_user_error():
            return cls.train(TrainingData.gathered(images, captions or [], masks or []), **given)

    @classmethod
    def train(
        cls,
        data: TrainingData,
        model: Any,
        clip: Any,
        vae: Any,
        preset: str,
        if_exists: str,
        save: bool,
        options: dict[str, Any] | None = None,
        **inputs: Any,
    ) -> Any:
        name = asked_for(inputs["name"].strip(), if_exists, save)
        config = config_from(name, preset, inputs, options or {}, data.has_captions)
        host, templates = ComfyHost(model, clip, vae, config.guidance), Templates.load(config.templates)
        sizes = [picture.size for picture in data.images]
        remarks = Remarks()
        own = side_to_train_at(sizes, host.resolution, config.square, host.unit)
        most = side_for(host, config, remarks, own)
        side = config.resolution or side_to_train_at(sizes, most, config.square, host.unit)
        dataset = encode_pictures(host, data.pictures(side, config.square, host.unit), config.flip)
        here = place(config.name, if_exists, save, identity(host, dataset, config, templates))
        asked, config = config.name, replace(config, name=here.name)
        facts = data.facts(templates, side)
        remarks += data.remarks(templates, config.templates) + lost_on_the_way(cls.hidden, data.missing)
        remarks += overridden(inputs, options or {}) + resolution_remarks(host, config, side)
        if here.finished:
            embedding, session, sampled = use_finished(host, config, here.folder, cls.hidden, facts, remarks)
        else:
            embedding, session, sampled = run_training(host, dataset, config, here, cls.hidden, facts, remarks)

        plot = to_batch([loss_plot(session.steps, here.name, session.kept)])
        previews = to_batch(sampled) if sampled else None
        vectors = embedding.fitted_to(host.widths)
        trained = with_embeddings(clip, dict.fromkeys(placeholders_of(asked), vectors), tell=show)
        shown = plot if previews is None else previews
        outputs = (embedding, trained, ExecutionBlocker(None) if previews is None else previews, plot)
        return io.NodeOutput(*outputs, ui=ui.PreviewImage(shown, cls=cls))


def required_options() -> list[io.Input]:
    """The most common options, and the preset for the others."""
    required = [name for name in TRAIN_EMBEDDING if name not in OPTIONAL_IN_TRAIN_EMBEDDING]
    inputs = [option_input(name, TRAIN_EMBEDDING[name], **HERE.get(name, {})) for name in required]
    preset = io.Combo.Input("preset", options=list(PRESETS), default="Balanced", tooltip=PRESETS_HELP)
    preset.extra_dict = {"values": shown_values()}  # not an argument of ComfyUI 0.3.64's
    inputs.insert(required.index("steps"), preset)
    return inputs


def optional_options() -> list[io.Input]:
    return [option_input(name, TRAIN_EMBEDDING[name], optional=True) for name in OPTIONAL_IN_TRAIN_EMBEDDING]


def shown_values() -> dict[str, dict[str, Any]]:
    """Input -> preset -> its value: the page shows it where the input says 0."""
    return {name: dict(OPTIONS[option].presets) for name, option in TRAIN_EMBEDDING.items() if OPTIONS[option].presets}


def config_from(
    name: str, preset: str, inputs: dict[str, Any], options: dict[str, Any], has_captions: bool
) -> TrainConfig:
    """The run's settings, from the inputs of this node and of Training Options. Raises UserError."""
    given = values_of({TRAIN_EMBEDDING[key]: value for key, value in inputs.items()})
    with_captions = "style-captions" if preset == "Style" else "captions"
    here = {
        "name": name,
        "init": initial(given["init"]),
        "learning_rate": given["learning_rate"] or None,
        "templates": with_captions if has_captions else None,
    }
    more = options if options.get("resolution") else {k: v for k, v in options.items() if k != "resolution"}
    config = TrainConfig.from_preset(preset, **given | here | more)
    check_names(config.preview_sampler, config.preview_scheduler)
    return config


def overridden(inputs: dict[str, Any], options: dict[str, Any]) -> list[str]:
    """Remarks on inputs of this node that Training Options override. The page fills in the preset's values itself."""
    both = {name: (inputs.get(name), options.get(TRAIN_EMBEDDING[name])) for name in ("learning_rate", "resolution")}
    both = {name: pair for name, pair in both.items() if pair[0] not in OPTIONS[TRAIN_EMBEDDING[name]].presets.values()}
    return [
        f"{name} {given:g} of Train Embedding has no effect: Training Options give {instead}."
        for name, (given, instead) in both.items()
        if given and instead and given != instead
    ]


def resolution_remarks(host: ComfyHost, config: TrainConfig, side: int) -> list[str]:
    """A remark for a model whose resolution nobody can know: a small one of its family's architecture."""
    count = sum(weight.numel() for weight in host.model.model.diffusion_model.parameters())
    if config.resolution or count > SMALL:
        return []
    return [
        f"This model is small ({count / 1e6:.0f} million parameters), so the resolution that it was trained at is not "
        f"known. The images are trained at {side} x {side}. If the model makes other sizes, set resolution."
    ]


def initial(text: str) -> str:
    """An initial text with the paths of the files that it means, in the embeddings folder. Raises UserError."""
    return with_paths(text, lambda name: str(embedding_path(initial_file(name))))


def initial_file(text: str) -> str:
    """The name of the embedding file that an initial text means."""
    names = file_names(text)
    return next((name for name in names if folder_paths.get_full_path("embeddings", name)), names[0])
