"""Captions by the WebUI's own interrogators, written beside the images that have none."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from modules import call_queue, deepbooru, progress, shared
from PIL import Image

from ..ti_train.data.captions import CaptionReader, write_caption
from ..ti_train.data.dataset import listing_with_images
from ..ti_train.data.image_files import DAMAGED, read_image
from ..ti_train.errors import UserError
from ..ti_train.text import Remarks, printable
from . import folders

log = logging.getLogger("ti_train")
INTERROGATORS: dict[str, Callable[[Image.Image], str]] = {  # each loads, or downloads, its model when it is first used
    "BLIP": lambda image: str(shared.interrogator.interrogate(image)),
    "DeepBooru": lambda image: str(deepbooru.model.tag(image)),
}
FAILED = "<error>"  # what the WebUI's interrogators return instead of raising

MOST = 32  # tasks that wait, and notes that no page has asked for

_notes: dict[str, str] = {}  # task -> what it did
_active: set[str] = set()  # tasks that wait or run


def start(folder: str, interrogator: str) -> str:
    """Queues the captioning; returns its task id for the WebUI's progress bar. Raises UserError."""
    place = folders.picture_folder(folder, write=True)
    if not without_caption(place):
        raise UserError(f"All images of '{folder}' have captions. To replace one, empty it and save first.")
    if len(_active) >= MOST:
        raise UserError(f"{MOST} captionings wait. Wait until some of them have ended.")
    task = progress.create_task_id("ti-train-captions")
    progress.add_task_to_queue(task)
    _active.add(task)
    threading.Thread(target=_work, args=(task, place, INTERROGATORS[interrogator]), name=task, daemon=True).start()
    return task


def active() -> bool:
    """Whether a captioning waits or runs."""
    return bool(_active)


def without_caption(place: Path) -> list[Path]:
    """The images of a folder that lack a caption. Raises UserError if it has no images."""
    listing = listing_with_images(place)
    reader = CaptionReader(listing, Remarks())
    return [path for path in listing.images if reader.lacks(path)]


def note_of(task: str) -> str:
    """What an ended task did."""
    return _notes.pop(task, "")


def _work(task: str, place: Path, interrogate: Callable[[Image.Image], str]) -> None:
    with call_queue.queue_lock:
        try:
            shared.state.begin(job=task)
            progress.start_task(task)
            _notes[task] = _captioned(without_caption(place), interrogate)  # some may have one by now
        except Exception as error:  # of the interrogators, of their downloads, of the host
            log.exception("Captioning failed")
            _notes[task] = f"Captioning failed: {type(error).__name__}: {error} (see the WebUI's console)"
        finally:
            for old in list(_notes)[:-MOST]:
                _notes.pop(old, None)
            _active.discard(task)
            shared.state.end()
            shared.state.interrupted = False
            progress.finish_task(task)


def _captioned(paths: list[Path], interrogate: Callable[[Image.Image], str]) -> str:
    """Captions images one by one until the WebUI's Interrupt; returns a note."""
    written, problems = 0, Remarks()
    for number, path in enumerate(paths):
        if shared.state.interrupted:
            break
        shared.state.job_count, shared.state.job_no = len(paths), number  # the interrogators begin jobs of their own
        shared.state.textinfo = printable(f"Captioning {path.name}")
        try:
            image, _ = read_image(path, 0, Remarks())
        except (UserError, *DAMAGED) as error:
            problems.append(f"{path.name} cannot be read: {error}")
            continue
        text = interrogate(image)
        if FAILED in text or not text:
            problems.append(f"{path.name} got no caption (see the WebUI's console).")
        else:
            written += bool(write_caption(path, text))
    return "\n".join([f"{written} caption(s) written. Check them before training.", *problems])
