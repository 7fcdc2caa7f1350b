"""Compare Embeddings: several embeddings with the same prompts and seeds, in one sheet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatch
from pathlib import Path, PurePath
from typing import Any

import comfy.model_management as management
import comfy.utils
import torch
from comfy_api.latest import io, ui

from ...ti_train.device import out_of_memory_as_user_error
from ...ti_train.editability import SHEET, for_model
from ...ti_train.embedding import Embedding
from ...ti_train.errors import UserError
from ...ti_train.evaluation.comparison import compare, comparison_sheet
from ...ti_train.evaluation.evaluate import NO_REFERENCE, Subject, initial_texts, prompt_lines, prompt_remarks
from ...ti_train.hosts.comfy.host import ComfyHost
from ..files import digest, embedding_files
from ..remarks import show
from ..sockets import CATEGORY, EmbeddingSocket, searched
from ..tensors import to_batch
from .load import NONE, embedding_named, embedding_path
from .sampling import distilled_guidance_input, model_inputs, sampling_for, sampling_inputs

UNUSED_NEGATIVE = "negative has no effect: it is used only if cfg is not 1."
CHOSEN = ("embedding_name_1", "embedding_name_2", "embedding_name_3")


class CompareEmbeddings(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        files = [NONE, *embedding_files()]
        return io.Schema(
            node_id="TITrain_CompareEmbeddings",
            display_name="Compare Embeddings",
            category=CATEGORY,
            description="Samples the same prompts and seeds with several embeddings, or with several steps of one, and "
            "shows all images in one labelled sheet.",
            **searched("textual inversion", "compare embeddings", "embedding grid", "xy plot", "contact sheet"),
            is_output_node=True,
            inputs=[
                *model_inputs(),
                *(
                    io.Combo.Input(name, options=files, default=NONE, tooltip="A file in the embeddings folder.")
                    for name in CHOSEN
                ),
                io.String.Input(
                    "more",
                    default="",
                    multiline=True,
                    tooltip="Further files of the embeddings folder, one per line. * stands for any text: "
                    "my-cat-steps/* takes all numbered copies of my-cat (see copy_every in Training Options).",
                ),
                io.Boolean.Input(
                    "initial_text",
                    default=True,
                    tooltip="The first row shows the initial text of the embeddings in their place: the model without "
                    "training.",
                ),
                io.String.Input(
                    "prompts",
                    default="a photo of *\na photo of * on the beach",
                    multiline=True,
                    tooltip="The prompts, one per line. * is the embedding.",
                ),
                io.String.Input("negative", default="", tooltip="Negative prompt of all images."),
                *sampling_inputs(number=3, what="Images of each embedding and prompt"),
                io.Int.Input(
                    "cell", default=256, min=64, max=1024, step=8, tooltip="Side of an image in the sheet, in pixels."
                ),
                EmbeddingSocket.Input(
                    "embedding", optional=True, tooltip="An embedding from another node: the first after initial_text."
                ),
                io.Boolean.Input(
                    "editability_rows",
                    default=False,
                    optional=True,
                    tooltip=f"A row for each of the editabilities {', '.join(f'{s:g}' for s in SHEET)} of each "
                    "embedding; Save Embedding writes it with the one that you like.",
                ),
                distilled_guidance_input(),
            ],
            outputs=[
                io.Image.Output("sheet", display_name="sheet", tooltip="All images, labelled, in one."),
                io.Image.Output(
                    "images",
                    display_name="images",
                    tooltip="The images one by one: prompt by prompt, in it row by row.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, more: str | None = None, **inputs: Any) -> str:
        try:
            return digest(Path(embedding_path(name)) for name in chosen(inputs, more or ""))
        except UserError:
            return ""

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        vae: Any,
        more: str,
        initial_text: bool,
        prompts: str,
        negative: str,
        number: int,
        steps: int,
        guidance: float,
        seed: int,
        resolution: int,
        cell: int,
        embedding: Embedding | None = None,
        editability_rows: bool = False,
        distilled_guidance: float = 0.0,
        **names: str,
    ) -> io.NodeOutput:
        files = chosen(names, more)
        embeddings = [*filter(None, [embedding]), *map(embedding_named, files)]
        if not embeddings:
            raise UserError("No embedding is chosen. Choose one or more files, or connect a trained embedding.")
        lines = prompt_lines(prompts.splitlines(), "prompts")
        with torch.inference_mode(False), out_of_memory_as_user_error():
            host = ComfyHost(model, clip, vae, distilled_guidance)
            subjects = initial_texts(embeddings, "") if initial_text else []
            remarks = [NO_REFERENCE] * (initial_text and not subjects)
            remarks += prompt_remarks(host, embeddings, lines, "prompt")
            remarks += prompt_remarks(host, embeddings, filter(None, [negative]), "negative prompt")
            sampling = sampling_for(host, resolution, number, steps, guidance, seed)
            remarks += [UNUSED_NEGATIVE] * (sampling.guidance == 1 and negative != "")
            labels = labelled([each.name for each in embeddings], ["connected"] * (embedding is not None) + files)
            for label, each in zip(labels, embeddings, strict=True):
                rows, unused = rows_of(label, each, SHEET if editability_rows else (0.0,), host)
                subjects, remarks = subjects + rows, remarks + unused
            show(remarks)
            bar, compared = comfy.utils.ProgressBar(len(lines) * len(subjects) * number), []
            for one in compare(host, subjects, lines, sampling, negative):
                compared.append(one)
                bar.update_absolute(len(compared), bar.total, ("JPEG", one.image, cell))
                management.throw_exception_if_processing_interrupted()
        sheet = to_batch([comparison_sheet(compared, f"{sampling.steps} steps, cfg {sampling.guidance:g}", cell)])
        return io.NodeOutput(sheet, to_batch([one.image for one in compared]), ui=ui.PreviewImage(sheet, cls=cls))


def rows_of(
    label: str, embedding: Embedding, strengths: Sequence[float], host: ComfyHost
) -> tuple[list[Subject], list[str]]:
    """A subject for each editability, and what of the embedding is not used."""
    used = [for_model(embedding, host.widths, host.vocabulary, strength) for strength in strengths]
    labels = [label + f", editability {strength:g}" * (len(strengths) > 1) for strength in strengths]
    return [Subject(each, turned.vectors) for each, (turned, _) in zip(labels, used, strict=True)], used[0][1]


def labelled(names: Sequence[str], origins: Sequence[str]) -> list[str]:
    """The names of embeddings, with their origins where several have one name: each has a row of its own."""
    pairs = zip(names, origins, strict=True)
    return [name if names.count(name) == 1 else f"{name} ({origin})" for name, origin in pairs]


def chosen(names: dict[str, str], more: str) -> list[str]:
    """The files of the lists, and those that the lines of a text name; each once. Raises UserError."""
    picked = [names[name] for name in CHOSEN if names.get(name, NONE) != NONE]
    return list(dict.fromkeys([*picked, *matching(more.splitlines(), embedding_files())]))


def matching(lines: Iterable[str], files: list[str]) -> list[str]:
    """The files that lines name, with or without extension. Raises UserError for a line that names none."""
    names = {file: PurePath(file).with_suffix("").as_posix() for file in files}
    found = []
    for line in filter(None, map(str.strip, lines)):
        named = [
            file for file, name in names.items() if fnmatch(name, line) or fnmatch(PurePath(file).as_posix(), line)
        ]
        if not named:
            near = get_close_matches(line, names.values(), 3, 0.5) or list(names.values())[:3]
            raise UserError(
                f"No file in the embeddings folders is named '{line}'. "
                + (f"There are {', '.join(near)}." if near else "There is none at all.")
            )
        found += named
    return found
