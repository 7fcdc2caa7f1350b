"""Evaluate Embedding: image similarity and editability, as the command `evaluate` measures them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

import comfy.model_management as management
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io, ui
from PIL import Image

from ...ti_train.data.picture import Picture, bucket, crop
from ...ti_train.device import out_of_memory_as_user_error
from ...ti_train.editability import for_model
from ...ti_train.embedding import Embedding
from ...ti_train.errors import UserError
from ...ti_train.evaluation.clip import PAPERS_MODEL, Clip, ClipJudge
from ...ti_train.evaluation.dino import WHERE_WEIGHTS_ARE, Dino
from ...ti_train.evaluation.evaluate import (
    NO_REFERENCE,
    PAPERS_PROMPTS,
    Sampled,
    Subject,
    evaluate,
    folder_name,
    initial_texts,
    prompt_remarks,
    settings_of,
)
from ...ti_train.evaluation.measures import Measure, further_measures, others
from ...ti_train.evaluation.options import sentence
from ...ti_train.evaluation.scores import Score, plot, table, write_scores
from ...ti_train.hosts.comfy.host import ComfyHost
from ..remarks import show
from ..sockets import CATEGORY, searched
from ..tensors import to_batch, to_images
from ..training_data import TrainingData
from ..upstream import lost_on_the_way
from .load import NONE, LoadEmbedding, chosen, embedding_inputs
from .sampling import distilled_guidance_input, model_inputs, sampling_for, sampling_inputs

CLIPS = "clip_vision"  # the host's folder


class EvaluateEmbedding(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        file, socket, word = embedding_inputs()
        return io.Schema(
            node_id="TITrain_EvaluateEmbedding",
            display_name="Evaluate Embedding",
            category=CATEGORY,
            description="Measures how similar the images of an embedding are to its training images, and how well it "
            "follows prompts (Gal et al. 2022, section 5), beside the initial text.",
            **searched("textual inversion", "evaluate embedding", "clip score", "image similarity", "editability"),
            is_input_list=True,
            is_output_node=True,
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
            inputs=[
                *model_inputs(),
                io.Image.Input("images", tooltip="The training images: a batch or a list, as for Train Embedding."),
                file,
                io.Combo.Input(
                    "clip_weights",
                    options=[NONE, *folder_paths.get_filename_list(CLIPS)],
                    default=NONE,
                    tooltip="A file with all of CLIP, its text encoder too, as open_clip publishes it, in "
                    "models/clip_vision. The paper's: open_clip_model.safetensors of vit_base_patch32_clip_224.openai. "
                    "A file for CLIP Vision Loader has no text encoder.",
                ),
                io.String.Input(
                    "clip_model", default=PAPERS_MODEL, tooltip="The model of these weights, by open_clip's name."
                ),
                io.Combo.Input(
                    "kind",
                    options=list(PAPERS_PROMPTS),
                    default="object",
                    tooltip="What was trained: the paper has other prompts for a style than for an object.",
                ),
                io.String.Input(
                    "prompts",
                    default="",
                    multiline=True,
                    tooltip="Prompts that the embedding is to follow, one per line; * is the embedding. Empty = the "
                    "paper's.",
                ),
                *sampling_inputs(number=8, what="Images of each prompt (paper: 64)"),
                socket,
                word,
                io.Mask.Input(
                    "masks",
                    optional=True,
                    tooltip="The subject white, its surroundings black: similarity to both, each alone. One mask per "
                    "image, or one for all. Used instead of the masks that come with the images.",
                ),
                io.Image.Input(
                    "gallery",
                    optional=True,
                    tooltip=f"{sentence('gallery')} For example from Load Training Images with subfolders; the training"
                    " images among them are left out.",
                ),
                io.Combo.Input(
                    "dino",
                    options=[NONE, *dino_folders()],
                    default=NONE,
                    optional=True,
                    tooltip=f"{sentence('dino')} In models/clip_vision.",
                ),
                distilled_guidance_input(),
            ],
            outputs=[
                io.String.Output("text", display_name="text", tooltip="The measures, as a table."),
                io.Image.Output("plot", display_name="plot", tooltip="Both measures, beside those of the references."),
                io.Float.Output(
                    "image_similarity",
                    display_name="image similarity",
                    tooltip="Between the images of the embedding and its training images. Higher is more faithful.",
                ),
                io.Float.Output(
                    "text_similarity",
                    display_name="text similarity",
                    tooltip="Between the images of the prompts and their texts. Higher is easier to edit.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, embedding_name: list[str] | None = None, **_: Any) -> str:
        (name,) = embedding_name or [NONE]
        return str(LoadEmbedding.fingerprint_inputs(name))

    @classmethod
    def execute(
        cls,
        images: list[torch.Tensor],
        masks: list[torch.Tensor] | None = None,
        gallery: list[torch.Tensor] | None = None,
        **lists: list[Any],
    ) -> io.NodeOutput:
        given = {key: values[0] for key, values in lists.items()}
        with torch.inference_mode(False), out_of_memory_as_user_error():
            return cls.evaluate(TrainingData.gathered(images, [], masks or []), to_images(gallery or []), **given)

    @classmethod
    def evaluate(
        cls,
        data: TrainingData,
        gallery: list[Image.Image],
        model: Any,
        clip: Any,
        vae: Any,
        embedding_name: str,
        clip_weights: str,
        clip_model: str,
        kind: str,
        prompts: str,
        number: int,
        steps: int,
        guidance: float,
        seed: int,
        resolution: int,
        embedding: Embedding | None = None,
        word: str = "",
        dino: str = NONE,
        distilled_guidance: float = 0.0,
    ) -> io.NodeOutput:
        found, remarks = chosen(embedding_name, embedding, word)
        asked = PAPERS_PROMPTS[kind]
        asked = asked.with_lines(prompts.splitlines(), "prompts") if prompts.strip() else asked
        measure = Clip.load(clip_model.strip(), clip_file(clip_weights))
        host = ComfyHost(model, clip, vae, distilled_guidance)
        sampling = sampling_for(host, resolution, number, steps, guidance, seed)
        pictures = [*data.pictures(sampling.side, False, host.unit)]
        look_alikes = without_own(gallery, pictures, sampling.side, host.unit)
        judge, measures = judging(host, measure, dino, pictures, look_alikes)
        references = initial_texts([found], "")
        remarks += prompt_remarks(host, [found], asked, "prompt") + [NO_REFERENCE] * (not references)
        used, unused = for_model(found, host.widths, host.vocabulary)
        remarks += [*unused, *data.mask_remarks(), *lost_on_the_way(cls.hidden, data.missing & {"masks"})]
        show(remarks)
        subjects = [*references, Subject(found.name, used.vectors)]
        settings = settings_of(host, judge, sampling, asked)
        folder = samples_folder(settings, subjects)
        scores = scores_of(evaluate(host, subjects, judge, asked, sampling, folder, measures))
        files = write_scores(scores, settings, results_folder(found.name))
        return output_of(scores, judge.name, [*remarks, "", *map(str, files)])


def judging(
    host: ComfyHost, clip: Clip, dino: str, pictures: list[Picture], look_alikes: list[Image.Image]
) -> tuple[ClipJudge, list[Measure]]:
    """What compares samples with the training images, and the measures beside it. Raises UserError."""
    judge = ClipJudge(clip.to(host.device), [Image.fromarray(picture.pixels) for picture in pictures])
    in_dinos_space = None if dino == NONE else dino_named(dino).to(host.device).features
    return judge, further_measures(pictures, look_alikes, judge.clip.features, in_dinos_space)


def scores_of(events: Iterator[Sampled | Score]) -> list[Score]:
    """The scores of an evaluation, with progress on the node."""
    scores, bar = [], comfy.utils.ProgressBar(1)
    for event in events:
        match event:
            case Sampled():
                bar.update_absolute(event.done, event.total)
            case Score():
                scores.append(event)
        management.throw_exception_if_processing_interrupted()
    return scores


def output_of(scores: list[Score], judge: str, lines: list[str]) -> io.NodeOutput:
    """The node's outputs; it shows the table above some lines."""
    text, last, drawn = table(scores), scores[-1], to_batch([plot(scores, judge)])
    shown = ui.PreviewText("\n".join([text, *lines]))
    return io.NodeOutput(text, drawn, last.image_similarity, last.text_similarity, ui=shown)


def results_folder(embedding: str) -> Path:
    """In ComfyUI's output directory. Raises OSError."""
    folder = Path(folder_paths.get_output_directory()) / "evaluation" / folder_name(embedding)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def clip_file(name: str) -> str:
    """Raises UserError if none is chosen."""
    path = folder_paths.get_full_path(CLIPS, name)
    if path is None:
        raise UserError(
            "The evaluation needs a CLIP with both of its encoders: choose clip_weights. The paper's is "
            "open_clip_model.safetensors of timm/vit_base_patch32_clip_224.openai on Hugging Face; put it into "
            "models/clip_vision."
        )
    return path


def dino_folders() -> list[str]:
    """The folders of models/clip_vision that have weights, and the configuration of a model of transformers."""
    return sorted({folder for folder, path in folders_of_weights() if (path / "config.json").is_file()})


def folders_of_weights() -> list[tuple[str, Path]]:
    """The folders in models/clip_vision with files of weights: name, path."""
    names = [name for name in folder_paths.get_filename_list(CLIPS) if PurePath(name).parent.name]
    paths = ((name, folder_paths.get_full_path(CLIPS, name)) for name in names)
    return [(PurePath(name).parent.as_posix(), Path(path).parent) for name, path in paths if path]


def dino_named(folder: str) -> Dino:
    """Raises UserError."""
    path = dict(folders_of_weights()).get(folder)
    if path is None:
        raise UserError(f"models/clip_vision has no folder '{folder}' with weights. {WHERE_WEIGHTS_ARE}")
    return Dino.load(path)


def without_own(gallery: list[Image.Image], own: list[Picture], side: int, unit: int) -> list[Image.Image]:
    """A gallery's images, cropped as for training, without the training images. Raises UserError if none is left."""
    left = others(own, (Image.fromarray(crop(image, bucket(image.size, side, unit))[0]) for image in gallery))
    if gallery and not left:
        raise UserError("gallery has no images of other things: all of them are training images.")
    return left


def samples_folder(settings: dict[str, Any], subjects: list[Subject]) -> Path:
    """For these settings only, so that a cancelled evaluation is continued and another one is not in its way."""
    key = json.dumps([settings, [subject.fingerprint for subject in subjects]], sort_keys=True)
    name = hashlib.sha256(key.encode()).hexdigest()[:16]
    return Path(folder_paths.get_temp_directory()) / "ti_train" / "evaluation" / name
