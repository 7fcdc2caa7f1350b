"""The main job on the embedded model: a concept that no caption names is learnt, and a trainer at rest fails the test.

How much of a concept a picture shows is read from its pixels (demo/measure.py), not from another network.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from old_libraries import needs_weights_alone

pytest.importorskip("diffusers")

from demo.__main__ import main
from demo.concepts import CONCEPTS, load
from demo.measure import fidelity, pair_fidelity
from ti_train.data.dataset import encode_pictures, find_pictures, read_pictures
from ti_train.events import Done
from ti_train.formats import load_embedding
from ti_train.host import SampleRequest, Vectors
from ti_train.hosts.diffusers.host import DiffusersHost
from ti_train.prompts import parse
from ti_train.training.config import TrainConfig
from ti_train.training.initial_vectors import initial_vectors
from ti_train.training.loop import train

MARGIN = 0.25  # by which the learnt word must beat its initial word
PICTURES = 8
DEMO = Path(__file__).resolve().parents[2] / "demo"


@pytest.fixture(scope="module")
def host() -> DiffusersHost:
    return DiffusersHost.load(DEMO / "model")


def shown(host: DiffusersHost, prompt: str, words: dict[str, Vectors]) -> list:
    prompts = (parse(prompt, words),) * PICTURES
    return host.sample(SampleRequest(prompts, tuple(range(PICTURES)), 128, 128, guidance=4.0), words)


def gain(host: DiffusersHost, seed: int, folder: Path, **settings: object) -> float:
    """How much more of the concept the learnt word shows than its initial word, in the same seeds' pictures."""
    concept = CONCEPTS["teal-heart"]
    config = TrainConfig(name=concept.name, init=concept.init, seed=seed, **settings)
    pictures = read_pictures(find_pictures(DEMO / "concepts" / concept.name), host.resolution, [])
    *_, done = train(host, encode_pictures(host, pictures), config, folder)
    assert isinstance(done, Done)

    def score(vectors: Vectors) -> float:
        pictures = shown(host, "a photo of a *", {"*": vectors})
        return sum(fidelity(picture, concept) for picture in pictures) / PICTURES

    return score(done.embedding.fitted_to(host.widths)) - score(initial_vectors(host, config)[0])


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_learnt_word_shows_the_concept_better_than_its_initial_word(host, seed, tmp_path):
    assert gain(host, seed, tmp_path) > MARGIN


def test_a_trainer_that_never_moves_the_vectors_fails_that_test(host, tmp_path):
    assert not gain(host, 0, tmp_path, learning_rate=0.0, steps=5) > MARGIN


@needs_weights_alone
@pytest.mark.parametrize("name", [path.stem for path in sorted((DEMO / "words").glob("*.safetensors"))])
def test_the_words_that_come_along_say_how_they_were_learnt(name):
    word = load_embedding(DEMO / "words" / f"{name}.safetensors")
    config = json.loads(word.provenance["config"])
    concept = load(DEMO / "concepts" / name / "concept.json")
    assert (config["name"], config["init"]) == (name, concept.init)
    assert int(word.provenance["step"]) == config["steps"]
    assert word.provenance["base_model"] == DiffusersHost.load(DEMO / "model").fingerprint


def test_two_words_that_come_along_stand_side_by_side(host):
    names = ("teal-heart", "lime-star")
    words = {n: load_embedding(DEMO / "words" / f"{n}.safetensors").fitted_to(host.widths) for n in names}
    pictures = shown(host, "a photo of a <teal-heart> beside a <lime-star>", words)
    scores = [min(pair_fidelity(picture, *(CONCEPTS[n] for n in names))) for picture in pictures]
    assert sum(score > 0.6 for score in scores) >= PICTURES / 2, scores


def test_generate_renders_with_several_words_at_once(tmp_path, capsys):
    prompt = "a sketch of <teal-heart> beside <lime-star>"
    assert main(["generate", "--prompt", prompt, "--number", "1", "--out", str(tmp_path)]) == 0
    assert Path(capsys.readouterr().out.strip()).is_file()


def test_an_unknown_concept_is_told(capsys):
    assert main(["--concept", "no-such"]) == 1
    assert "Unknown demo concept 'no-such'. The concepts are dusk-lines, fair-toy" in capsys.readouterr().err


@pytest.mark.slow
def test_the_demo_learns_a_word_and_shows_it(tmp_path, capsys):
    assert main(["--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert {file.name for file in tmp_path.iterdir()} == {
        "teal-heart.safetensors", "teal-heart.csv", "teal-heart-loss.png", "teal-heart-sheet.png"
    }  # fmt: skip
    assert f"-m demo generate --embedding {tmp_path / 'teal-heart.safetensors'}" in said


def test_the_model_fits_into_ten_megabytes():
    assert sum(file.stat().st_size for file in (DEMO / "model").rglob("*") if file.is_file()) <= 10 * 2**20
