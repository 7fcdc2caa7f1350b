"""A run on disk: the embedding in its place, and a state file to resume from.

The state file holds no random state: everything that a step draws follows from the seed and the step's number (see
loop.py). Vectors, optimizer moments, the loss scale and the step are enough. It is a safetensors file with another
extension, so that hosts do not list it as an embedding.

Nothing good is overwritten by something worse: until a run ends, its vectors are in the state file. The embedding is
put in its place before that only if nothing is there, or what this run has put there, and if it is not known to be
worse than the untrained one. So whatever ends a run, an earlier embedding of its name is still there, and an untrained
one never is.
"""

from __future__ import annotations

import glob
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..embedding import Embedding, step_in
from ..errors import BusyError, DiskError, UserError
from ..files import remove_unfinished, remove_unfinished_in, write_atomically
from ..formats import preview_beside, put_preview, save_embedding
from ..names import OldName, numbered
from ..text import json_value
from .config import OPTIONS, without_paths
from .learning_rate import number_or_schedule
from .pictures import picture_of
from .provenance import FINISHED, RUN, digest_of
from .run_lock import Holder, only_run, unlock
from .state import State
from .state_file import check_sizes, file_of, state_in

DIFFERENT = {  # of the identity, where the values say nothing to people
    "pictures": "the images are not the same (their files, captions, masks or crops)",
    "model": "another model is loaded",
    "templates": "the templates have changed",
}
WORSE, COPIES = "-worse", "-steps"  # after the name of a run: a worse embedding, the folder of its numbered copies
INITIAL_FILE = "initial_file"  # of the identity: the digest of the file of the initial vectors
HOST = "settings"  # of the identity: the host's own
ENDING = "ending"  # of the identity: what decides which step is the result
BEFORE = {"pull": 0.0}  # what runs did whose version lacked the option, where that is not its default
IGNORED = ("name", INITIAL_FILE, ENDING)  # on resuming: the state has the initial vectors, whatever their file is now
REWRITTEN: dict[str, Callable[[str], Any]] = {"init": without_paths, "learning_rate": number_or_schedule}


@dataclass(frozen=True)
class Interrupted:
    """step: the last one of an interrupted run. kept: the one in the embedding's file; None if that is another's."""

    step: int
    kept: int | None


@dataclass(frozen=True)
class RunFiles:
    """The files of a run. identity: the settings, model and images that a resumed run must share.

    holder: whose run it is, while it is locked.
    """

    folder: Path
    name: str
    identity: dict[str, Any]
    holder: Callable[[], Holder] = field(default=lambda: "ours", compare=False, repr=False)

    @property
    def embedding(self) -> Path:
        return self.folder / f"{self.name}.safetensors"

    @property
    def beside(self) -> Path:
        """For an embedding that is worse than its untrained vectors, if there is an earlier one."""
        return self.folder / f"{self.name}{WORSE}.safetensors"

    @property
    def state(self) -> Path:
        return self.folder / f"{self.name}.resume"

    @contextmanager
    def locked(self) -> Iterator[RunFiles]:
        """Keeps other runs of this name from starting. Raises BusyError if one runs, and DiskError."""
        try:
            lock = ExitStack()
            holder = lock.enter_context(only_run(self._lock, self.name))
        except OSError as error:
            raise DiskError(
                f"'{self.folder}' is not writable ({error.strerror or error}). Choose another folder, or free disk "
                "space."
            ) from None
        with lock:
            self._remove_unfinished()
            yield replace(self, holder=holder)

    def unlock(self, owner: Mapping[str, Any]) -> None:
        """Lets another run start though a process that is known to be gone has locked this name."""
        unlock(self._lock, owner)

    def _remove_unfinished(self) -> None:
        """Removes what killed runs of this name have left of the files that they were writing."""
        for file in (self.embedding, self.beside):
            remove_unfinished(file)
            remove_unfinished(preview_beside(file))
        remove_unfinished(self.state)
        for copies in self.embedding.parent.glob(f"{glob.escape(self.embedding.stem)}{COPIES}*"):
            remove_unfinished_in(copies)

    def save(self, state: State, embedding: Embedding, finished: bool = False) -> Path | None:
        """Saves a run after a step: its state, and its embedding if that may take its place, whose file is returned.

        finished: the run is complete, or the user has asked to keep what it has. Then an earlier embedding of this name
        is replaced, unless by one that is worse than its untrained vectors: that one is put beside it. Else nothing is
        saved if the run has been taken over: what is there is as good. Raises OSError.
        """
        if not finished and self._is_taken_over():
            return None
        self._save_state(state)
        replaces, worse = self._is_free_for(state), state.course.improved is False
        if not finished and (worse or not replaces):
            return None
        file = self.beside if worse and not replaces else self.embedding
        return _put(embedding, file, state, state.course.kept(state.step))

    def rescue(self, state: State, embedding: Embedding, finished: bool = False) -> Path | None:
        """Saves; if that fails, saves to the system's temporary folder and raises DiskError with its path."""
        try:
            return self.save(state, embedding, finished)
        except OSError as error:
            refuge = RunFiles(Path(tempfile.mkdtemp(prefix="ti-train-")), self.name, self.identity)
            try:
                refuge.save(state, embedding, finished)
            except OSError as second:
                raise DiskError(
                    f"Neither '{self.folder}' ({error.strerror or error}) nor '{refuge.folder}' "
                    f"({second.strerror or second}) is writable. The files of the last save are unchanged."
                ) from error
            raise DiskError(
                f"'{self.folder}' is not writable ({error.strerror or error}). Step {state.step} was saved to "
                f"'{refuge.folder}' instead. Free disk space, copy the files back, and resume."
            ) from error

    def copy(self, state: State, embedding: Embedding) -> Path:
        """Writes a numbered copy, in a folder of this run's copies beside the embedding. Raises OSError."""
        folders = map(self.embedding.with_name, numbered(self.embedding.stem + COPIES))
        folder = next(folder for folder in folders if _are_of(folder, state.run))
        folder.mkdir(parents=True, exist_ok=True)
        return _put(embedding, folder / f"{self.embedding.stem}-{state.step:06d}.safetensors", state, state.step)

    def interrupted(self) -> Interrupted | None:
        """What an interrupted run has left; None if there is none."""
        state, embedding = header_of(self.state), header_of(self.embedding)
        step = step_in(state)
        if not step:
            return None
        ours = RUN in state and state[RUN] == embedding.get(RUN)
        return Interrupted(step, step_in(embedding) if ours else None)

    @property
    def _lock(self) -> Path:
        return self.embedding.with_name(f".{self.embedding.stem}.lock")

    def _is_taken_over(self) -> bool:
        """Whether another process trains this run, or has finished it, while this one slept."""
        holder = self.holder()
        return holder == "another's" or (holder == "nobody's" and self.has_finished())

    def _is_free_for(self, state: State) -> bool:
        """Whether the embedding's file does not exist, or was written by this run."""
        return not self.embedding.exists() or header_of(self.embedding).get(RUN) == state.run

    def _save_state(self, state: State) -> None:
        self.state.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.state, file_of(state, self.identity))

    def load(self) -> State:
        """The state of an interrupted run. Raises UserError if there is none, or if it belongs to another run."""
        if not self.state.is_file():
            raise UserError(f"Nothing to resume: '{self.state}' does not exist. Start a new run.")
        try:
            with safe_open(self.state, framework="pt") as file:
                header = file.metadata() or {}
                check_sizes({key: math.prod(file.get_slice(key).get_shape()) for key in file.keys()})  # noqa: SIM118
                tensors: dict[str, Tensor] = {
                    key: file.get_tensor(key).clone()  # they would be views of a file that is replaced
                    for key in file.keys()  # noqa: SIM118
                }
            identity, state = dict(json_value(header["identity"])), state_in(header, tensors)
        except (SafetensorError, OSError, LookupError, TypeError, ValueError, OverflowError) as error:
            raise UserError(
                f"'{self.state}' is not the state of a run, or it is damaged ({error!r}). Delete it and start "
                "a new run."
            ) from None
        self._check(identity)
        return state

    def _check(self, saved: dict[str, Any]) -> None:
        now = json.loads(json.dumps(self.identity))
        # what the run's version lacked: options, and the host's settings, of which nothing is known
        lacking = {name: BEFORE.get(name, option.default) for name, option in OPTIONS.items() if name in now}
        saved = lacking | {HOST: now.get(HOST)} | saved
        # earlier versions had paths, and plain numbers as texts
        saved |= {key: now_as(saved[key]) for key, now_as in REWRITTEN.items() if isinstance(saved.get(key), str)}
        different = [
            DIFFERENT.get(key) or f"{key} was {saved.get(key)!r}, now {now.get(key)!r}"
            for key in {**now, **saved}
            if saved.get(key) != now.get(key) and key not in IGNORED
        ]
        if different:
            raise UserError(
                f"'{self.state.name}' belongs to another run: {'; '.join(different)}. Use the same settings, "
                f"or start a new run from the trained embedding: init = '{self.embedding.name}'."
            )

    def has_finished(self) -> bool:
        """Whether the embedding that is there is of a run with the same settings, model, images and initial file.

        The run was completed, or stopped by a user who wanted to keep what it had.
        """
        return header_of(self.embedding).get(FINISHED) == digest_of(self.identity)

    def can_resume(self) -> bool:
        """Whether a run with the same settings, model and images was interrupted."""
        try:
            self.load()
        except UserError:
            return False
        return True

    @property
    def exist(self) -> bool:
        return any(map(os.path.exists, (self.embedding, self.state)))  # False too for what no name can be

    def check_free(self) -> None:
        """Raises UserError if there is an embedding or an interrupted run of this name, which came in the meantime."""
        if self.embedding.exists() or self.interrupted():
            raise UserError(
                f"'{self.embedding.with_suffix('')}' was free when this training was asked for, and now is the name of "
                "another embedding or interrupted run, which is unchanged. Choose another name, or replace it on "
                "purpose (overwrite)."
            )

    def check_still(self, state: State) -> None:
        """Raises BusyError unless the state file is still the one of this state; for a run that is locked."""
        there = header_of(self.state)
        if (there.get(RUN, ""), step_in(there)) != (state.run, state.step):
            raise BusyError(
                f"'{self.name}' was trained by another run while this one prepared to continue it from step "
                f"{state.step}. That run's files are unchanged. Start this one again if it has not finished."
            )

    def finish(self) -> None:
        """Removes the state file of a completed run."""
        self.state.unlink(missing_ok=True)


def name_in(folder: Path, name: str) -> str:
    """The name of a run that is in a folder, also one that only older versions accepted; any other name as it is."""
    old = OldName(name)
    return old if old.is_file_name and RunFiles(folder, old, {}).exist else name


def _put(embedding: Embedding, file: Path, state: State, step: int) -> Path:
    """Writes the embedding of a step under the file's name, with the picture of that step; returns the file."""
    save_embedding(replace(embedding, name=file.stem), file)
    put_preview(file, picture_of(state.pictures, step))
    return file


def _are_of(folder: Path, run: str) -> bool:
    """Whether all files in a folder were written by this run; it need not exist."""
    return all(header_of(file).get(RUN) == run for file in folder.glob("*.safetensors"))


def header_of(file: Path) -> dict[str, str]:
    """The header of a safetensors file; {} if it is none, or does not exist."""
    try:
        with safe_open(file, framework="pt") as opened:
            return dict(opened.metadata() or {})
    except (SafetensorError, OSError):
        return {}
