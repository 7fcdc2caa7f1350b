"""A run on disk: the current embedding, and a state file to resume from.

The state file holds no random state: everything that a step draws follows from the seed and the step's number (see
loop.py). Vectors, optimizer moments, the loss scale and the step are enough. It is a safetensors file with another
extension, so that hosts do not list it as an embedding.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .. import __version__
from ..embedding import Embedding, first_of, mean_cosine
from ..errors import UserError
from ..files import write_atomically
from ..formats import save_embedding
from ..host import Host
from .config import OPTIONS, TrainConfig

VECTORS, INITIAL, OPTIMIZER, PER_IMAGE = "vectors.", "start.", "optimizer.", "own."


@dataclass(frozen=True)
class State:
    """A run after its last completed step. Tensors are fp32."""

    step: int
    seconds: float  # spent in steps
    vectors: dict[str, Tensor]  # encoder -> [num_vectors, width]
    initial: dict[str, Tensor]  # the same before step 1; the file they came from may have been replaced
    optimizer: dict[str, Tensor]
    per_image: dict[str, Tensor] = field(default_factory=dict)  # encoder -> [images, width]: per-image tokens


@dataclass(frozen=True)
class RunFiles:
    """The files of a run. identity: the settings, model and images that a resumed run must share."""

    folder: Path
    name: str
    identity: dict[str, Any]

    @property
    def embedding(self) -> Path:
        return self.folder / f"{self.name}.safetensors"

    @property
    def state(self) -> Path:
        return self.folder / f"{self.name}.resume"

    def save(self, state: State, embedding: Embedding) -> None:
        """Writes both files. Raises OSError."""
        tensors = {VECTORS + key: value for key, value in state.vectors.items()}
        tensors |= {INITIAL + key: value for key, value in state.initial.items()}
        tensors |= {OPTIMIZER + key: value for key, value in state.optimizer.items()}
        tensors |= {PER_IMAGE + key: value for key, value in state.per_image.items()}
        header = {
            "step": str(state.step),
            "seconds": str(state.seconds),
            "identity": json.dumps(self.identity),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        save_embedding(embedding, self.embedding)
        write_atomically(self.state, save({key: t.cpu().contiguous() for key, t in tensors.items()}, header))

    def begin(self, state: State, embedding: Embedding) -> None:
        """The first save, so that a read-only folder is reported before training. Raises UserError."""
        try:
            self.save(state, embedding)
        except OSError as error:
            raise UserError(
                f"'{self.folder}' is not writable ({error.strerror or error}). Choose another folder, or free disk "
                "space."
            ) from None

    def rescue(self, state: State, embedding: Embedding) -> None:
        """Saves; if that fails, saves to the system's temporary folder and raises UserError with its path."""
        try:
            self.save(state, embedding)
        except OSError as error:
            refuge = RunFiles(Path(tempfile.mkdtemp(prefix="ti-train-")), self.name, self.identity)
            try:
                refuge.save(state, embedding)
            except OSError as second:
                raise UserError(
                    f"Neither '{self.folder}' ({error.strerror or error}) nor '{refuge.folder}' "
                    f"({second.strerror or second}) is writable. The files of the last save are unchanged."
                ) from error
            raise UserError(
                f"'{self.folder}' is not writable ({error.strerror or error}). Step {state.step} was saved to "
                f"'{refuge.folder}' instead. Free disk space, copy both files back, and resume."
            ) from error

    def load(self) -> State:
        """The state of an interrupted run. Raises UserError if there is none, or if it belongs to another run."""
        if not self.state.is_file():
            raise UserError(f"Nothing to resume: '{self.state}' does not exist. Start a new run.")
        try:
            with safe_open(self.state, framework="pt") as file:
                header = file.metadata() or {}
                tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            step, seconds, identity = (
                int(header["step"]),
                float(header["seconds"]),
                json.loads(header["identity"]),
            )
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise UserError(
                f"'{self.state}' is not the state of a run, or it is damaged ({error!r}). Delete it and start "
                "a new run."
            ) from None
        self._check(identity)
        return State(step, seconds, *(_part(tensors, prefix) for prefix in (VECTORS, INITIAL, OPTIMIZER, PER_IMAGE)))

    def _check(self, saved: dict[str, Any]) -> None:
        now = json.loads(json.dumps(self.identity))
        newer = {name for name in now if name in OPTIONS and name not in saved}  # options that the run's version lacked
        saved = saved | {name: OPTIONS[name].default for name in newer}
        different = [
            f"{key} was {saved.get(key)!r}, now {now.get(key)!r}"
            for key in {**now, **saved}
            if saved.get(key) != now.get(key)
        ]
        if different:
            raise UserError(
                f"'{self.state.name}' belongs to another run: {'; '.join(different)}. Use the same settings, "
                f"or start a new run from the trained embedding: init = '{self.embedding.name}'."
            )

    def finish(self) -> None:
        """Removes the state file of a completed run."""
        self.state.unlink(missing_ok=True)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key[len(prefix) :]: tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def as_embedding(state: State, config: TrainConfig, host: Host) -> Embedding:
    """The embedding after a step, with its provenance."""
    count = config.vectors_at(state.step)
    vectors, initial = (
        {e: v.float().cpu() for e, v in first_of(w, count).items()} for w in (state.vectors, state.initial)
    )
    provenance = {
        "step": str(state.step),
        "init": config.init,
        "base_model": host.fingerprint,
        "config": json.dumps(asdict(config)),
        "norms": json.dumps(
            {encoder: [round(n, 4) for n in v.norm(dim=-1).tolist()] for encoder, v in vectors.items()}
        ),
        "cosine_to_init": f"{float(mean_cosine(vectors, initial)):.4f}",
        "software": f"ti-train {__version__}",
    }
    return Embedding(config.name, vectors, provenance)
