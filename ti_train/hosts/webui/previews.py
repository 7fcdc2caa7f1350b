"""A WebUI's own sampling of previews, by which neither its progress nor its chosen checkpoint changes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from modules import processing, scripts, shared
from PIL import Image

from ...host import SampleRequest

CHECKPOINT = "sd_model_checkpoint"  # the WebUI's option
JOB_FIELDS = ("job", "job_no", "job_count", "sampling_step", "sampling_steps", "textinfo")


class Interrupted(Exception):  # noqa: N818
    """The user pressed Interrupt while a preview was being sampled."""


def picture(
    model: Any, request: SampleRequest, text: str, negative: str, seed: int, size: tuple[int, int]
) -> Image.Image:
    """One picture as the txt2img tab samples it, without scripts of other extensions.

    size: width and height in pixels; 0: the request's. Raises Interrupted.
    """
    task = processing.StableDiffusionProcessingTxt2Img(
        sd_model=model,
        prompt=text,
        negative_prompt=negative,
        seed=seed,
        steps=request.steps,
        cfg_scale=request.guidance,
        width=size[0] or request.width,
        height=size[1] or request.height,
        sampler_name=request.sampler,
        do_not_save_grid=True,
        do_not_save_samples=True,
        do_not_reload_embeddings=True,  # a reload would remove the registered embeddings
    )
    task.scripts, task.script_args = scripts.ScriptRunner(), []
    # the WebUI caches conditions by the prompt's text, which does not change with the vectors
    task.cached_c, task.cached_uc = [None] * 3, [None] * 3
    with closing(task):
        pictures: list[Image.Image] = processing.process_images(task).images
    if not pictures:
        raise Interrupted
    return pictures[0]


@contextmanager
def chosen(model: Any) -> Iterator[None]:
    """Has the WebUI take a model for the chosen one."""
    options, own = shared.opts.data, model.sd_checkpoint_info.title
    before, options[CHECKPOINT] = options.get(CHECKPOINT), own
    try:
        yield
    finally:
        if options[CHECKPOINT] == own:  # else there has been another choice
            options[CHECKPOINT] = before


@contextmanager
def preserved_job_state() -> Iterator[None]:
    """Restores the training's progress in the WebUI's state, which sampling a preview overwrites."""
    before = {name: copy.copy(getattr(shared.state, name)) for name in JOB_FIELDS}
    try:
        yield
    finally:
        shared.total_tqdm.clear()
        for name, value in before.items():
            setattr(shared.state, name, value)
