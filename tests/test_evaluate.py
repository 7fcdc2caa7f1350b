"""The evaluation of learnt words: order, references, interruption; and the command, with a real pipeline and a CLIP."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny_host import ENCODER, WIDTH, TinyHost

from ti_train.__main__ import main
from ti_train.dataset import find_pictures
from ti_train.embedding import Embedding
from ti_train.errors import UserError
from ti_train.evaluate import (
    PAPER,
    EvaluationPrompts,
    Sampled,
    Subject,
    evaluate,
    initial_words,
    training_pictures,
)
from ti_train.hosts.base import Slot
from ti_train.samples import Sampling
from ti_train.scores import Score

PROMPTS = EvaluationPrompts("a photo of a *", ("a red *", "a blue *"))
SMALL = Sampling(side=32, number=3, steps=2, batch_size=2)


def brightness(picture: Image.Image) -> float:
    return float(np.asarray(picture).mean()) / 255


class BrightnessJudge:
    """Pictures are alike in so far as they are equally bright; a text is met in so far as a picture is bright."""

    name = "brightness"

    def __init__(self, pictures: Sequence[Image.Image]) -> None:
        self.pictures = pictures

    def image_similarity(self, samples: Sequence[Image.Image]) -> float:
        return 1 - abs(np.mean([*map(brightness, samples)]) - np.mean([*map(brightness, self.pictures)]))

    def text_similarity(self, samples: Sequence[Image.Image], prompt: str) -> float:
        return float(np.mean([*map(brightness, samples)]))

    def similarity_of_pictures(self) -> float:
        return 1.0


def learnt(seed: int = 0) -> Subject:
    vectors = torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(seed))
    return Subject(f"word-{seed}", {ENCODER: vectors})


def events(host: TinyHost, subjects: Sequence[Subject], out: Path) -> list[Sampled | Score]:
    judge = BrightnessJudge([Image.new("RGB", (32, 32), "white"), Image.new("RGB", (32, 32), "gray")])
    return list(evaluate(host, subjects, judge, PROMPTS, SMALL, out))


def scores(*given) -> list[Score]:
    return [event for event in events(*given) if isinstance(event, Score)]


def test_the_training_pictures_come_first_and_then_each_subject(tmp_path):
    pictures, initial, word = scores(TinyHost(), [Subject("toy", "toy"), learnt()], tmp_path)
    assert (pictures.kind, pictures.image_similarity) == ("training pictures", 1.0)
    assert pictures.edits == dict.fromkeys(PROMPTS.edits, pytest.approx((255 + 128) / 2 / 255))
    assert [(s.label, s.kind) for s in (initial, word)] == [("toy", "initial word"), ("word-0", "word")]
    assert list(word.edits) == ["a red *", "a blue *"]


def test_the_score_is_that_of_the_samples_on_disk(tmp_path):
    (_, word) = scores(TinyHost(), [learnt()], tmp_path)
    on_disk = [brightness(Image.open(file)) for file in tmp_path.glob("word-0/a-red-*.png")]
    assert len(on_disk) == 3
    assert word.edits["a red *"] == pytest.approx(np.mean(on_disk))


def test_progress_counts_every_sample_once(tmp_path):
    told = [e for e in events(TinyHost(), [Subject("toy", "toy"), learnt()], tmp_path) if isinstance(e, Sampled)]
    assert {e.total for e in told} == {18}
    assert [told[0].done, told[1].done, told[-1].done] == [0, 2, 18]


class Interrupted(TinyHost):
    """Interrupted within the denoiser's n-th pass, in the middle of a batch."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.passes, self.at, self.seeds = 0, at, []

    def predict(self, *given):
        self.passes += 1
        if self.passes == self.at:
            raise KeyboardInterrupt
        return super().predict(*given)

    def sample(self, request, words):
        pictures = super().sample(request, words)
        self.seeds += [(request.prompts[0], seed) for seed in request.seeds]
        return pictures


def test_stopped_in_mid_run_and_made_anew_it_samples_nothing_twice_and_scores_the_same(tmp_path):
    subjects = [Subject("toy", "toy"), learnt()]
    whole = scores(TinyHost(), subjects, tmp_path / "whole")
    first, second, third = Interrupted(at=30), Interrupted(at=0), Interrupted(at=0)
    with pytest.raises(KeyboardInterrupt):
        events(first, subjects, tmp_path / "broken")
    resumed = events(second, subjects, tmp_path / "broken")
    assert isinstance(resumed[0], Sampled)
    assert resumed[0].done == len(first.seeds) > 0, "it says what is there already"
    assert [e for e in resumed if isinstance(e, Score)] == whole
    assert len(first.seeds + second.seeds) == len(set(first.seeds + second.seeds)) == 18
    assert scores(third, subjects, tmp_path / "broken") == whole
    assert third.seeds == []


def test_another_word_of_the_same_name_does_not_take_up_the_first_ones_samples(tmp_path):
    scores(TinyHost(), [learnt(0)], tmp_path)
    with pytest.raises(UserError, match="of another run: word "):
        scores(TinyHost(), [Subject("word-0", learnt(1).meaning)], tmp_path)


def test_vectors_stand_where_the_placeholder_was_and_plain_text_too():
    assert learnt().prompt("a * on the moon") == ("a ", Slot("*"), " on the moon")
    assert Subject("cat", "cat").prompt("a * on the moon") == ("a cat on the moon",)


def word_from(init: str) -> Embedding:
    return Embedding("w", {}, {"config": json.dumps({"init": init})})


@pytest.mark.parametrize(
    ("told", "given", "words"),
    [
        (["cat", "cat", "dog"], "", ["cat", "dog"]),
        (["cat"], "kitten", ["kitten"]),
        (["words/old.safetensors"], "", []),
        ([""], "", []),
    ],
)
def test_the_initial_words_are_those_that_the_files_tell(told, given, words):
    subjects = initial_words([word_from(init) for init in told], given)
    assert [(s.label, s.meaning, s.kind) for s in subjects] == [(w, w, "initial word") for w in words]


@pytest.mark.parametrize("kind", PAPER)
def test_the_papers_prompts_each_hold_the_word_once(kind):
    assert all(prompt.count("*") == 1 for prompt in PAPER[kind])
    assert len(set(PAPER[kind])) == len(list(PAPER[kind]))


def test_prompts_of_ones_own(tmp_path):
    file = tmp_path / "edits.txt"
    file.write_text("\ufeffa * in the rain\n\n a * on Mars \n", encoding="utf-8")
    assert list(PROMPTS.with_edits(file)) == ["a photo of a *", "a * in the rain", "a * on Mars"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"a * in the rain\non Mars", r"'on Mars' in '.*' lacks \*\. Write \* where"),
        (b"\n", "has no prompts"),
        (b"\xff\xfe*", "cannot be read as UTF-8"),
    ],
)
def test_prompts_that_cannot_be_used(tmp_path, content, why):
    (tmp_path / "edits.txt").write_bytes(content)
    with pytest.raises(UserError, match=why):
        PROMPTS.with_edits(tmp_path / "edits.txt")


def test_training_pictures_are_cropped_as_for_training_and_damaged_ones_named(pictures, tmp_path):
    warned: list[str] = []
    (tmp_path / "bad.png").write_bytes(b"")
    read = training_pictures([*find_pictures(pictures), tmp_path / "bad.png"], 16, warned)
    assert [p.size for p in read] == [(16, 16)] * 3
    assert warned[0].startswith("Skipped bad.png")
    with pytest.raises(UserError, match="None of the training pictures can be used"):
        training_pictures([tmp_path / "bad.png"], 16, [])


# --- the command ------------------------------------------------------------------


@pytest.fixture
def words(tmp_path) -> list[Path]:
    """Two words as files; the first says that it began with "toy"."""
    paths = [tmp_path / "my-cat.safetensors", tmp_path / "my-dog.safetensors"]
    for seed, path in enumerate(paths):
        vectors = 0.3 * torch.randn(1, 32, generator=torch.Generator().manual_seed(seed))
        save_file({"emb_params": vectors}, path, {} if seed else {"config": json.dumps({"init": "toy"})})
    return paths


@pytest.fixture
def run(pipeline_folder, pictures, clip_weights, words, tmp_path):
    """Runs `evaluate` on a small pipeline with a small random CLIP, and what is given, into tmp_path/out."""

    def run(*more: str, embeddings: Sequence[Path] = words) -> int:
        given = ["--model", pipeline_folder, "--images", pictures, "--out", tmp_path / "out", "--device", "cpu"]
        given += [part for word in embeddings for part in ("--embedding", word)]
        clip = ["--clip-model", "tiny-clip", "--clip-weights", clip_weights]
        return main(["evaluate", *map(str, [*given, *clip]), "--number", "2", "--steps", "2", *more])

    return run


def figures(out: Path) -> dict[str, list[str]]:
    with (out / "evaluation.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header[:4] == ["label", "kind", "image_similarity", "text_similarity"]
    return {row[0]: row[1:] for row in rows}


def test_it_writes_a_table_a_plot_and_every_sample(run, tmp_path, capsys):
    assert run() == 0
    said, out = capsys.readouterr(), tmp_path / "out"
    assert list(figures(out)) == ["training pictures", "toy", "my-cat", "my-dog"]
    assert 'initial word "toy"' in said.out
    assert "54/54" in said.err, "3 subjects, 9 prompts, 2 samples"
    assert sum(1 for _ in out.rglob("samples/*/*.png")) == 54
    whole = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    assert whole["settings"]["judge"].startswith("CLIP tiny-clip")
    assert (whole["settings"]["number"], whole["settings"]["steps"], whole["settings"]["side"]) == (2, 2, 16)
    assert Image.open(out / "evaluation.png").size == (900, 620)


def test_a_style_is_measured_with_the_papers_style_prompts(run, tmp_path):
    assert run("--style") == 0
    whole = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    assert whole["settings"]["prompts"] == list(PAPER["style"])
    assert list(whole["scores"][0]["edits"]) == list(PAPER["style"].edits)


def test_the_command_goes_on_after_an_interruption(run, words, tmp_path, monkeypatch, capsys):
    from ti_train.hosts.diffusers import DiffusersHost

    assert run() == 0
    expected = figures(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "whole")
    sample, batches = DiffusersHost.sample, []

    def counted(host, request, given):
        batches.append(request.prompts[0])
        if len(batches) == 12:
            raise KeyboardInterrupt
        return sample(host, request, given)

    monkeypatch.setattr(DiffusersHost, "sample", counted)
    capsys.readouterr()
    assert run() == 130
    said = capsys.readouterr()
    assert "the same command goes on where it was stopped" in said.out
    assert said.err.splitlines()[-1] == "Interrupted."
    assert sum(1 for _ in (tmp_path / "out").rglob("*.png")) == 22
    assert run() == 0
    assert len(batches) == 12 + 27 - 11
    assert figures(tmp_path / "out") == expected


def test_without_an_initial_word_that_reference_is_missed(run, words, tmp_path, capsys):
    assert run("--prompts", str(edits(tmp_path)), embeddings=words[1:]) == 0
    assert "no initial word is known for a reference" in capsys.readouterr().err.lower()
    assert run("--prompts", str(edits(tmp_path)), "--init", "dog", embeddings=words[1:]) == 0
    assert list(figures(tmp_path / "out")) == ["training pictures", "dog", "my-dog"]


def edits(folder: Path) -> Path:
    (folder / "edits.txt").write_text("a red *", encoding="utf-8")
    return folder / "edits.txt"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--clip-weights", ""], "No weights of CLIP are given"),
        (["--clip-model", "no-such-clip"], "open_clip knows no model 'no-such-clip'"),
        (["--images", "no-such-folder"], "There is no folder 'no-such-folder'"),
        (["--prompts", "no-such-file"], "The prompts 'no-such-file' cannot be read"),
        (["--embedding", "none.safetensors"], "There is no embedding file 'none.safetensors'"),
        (["--number", "0"], "--number is 0"),
        (["--resolution", "20"], "--resolution is 20"),
        (["--demo"], "has no concept.json: --demo measures the drawn concepts"),
    ],
)
def test_a_mistake_ends_with_1_and_one_sentence(run, capsys, options, why):
    assert run(*options) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ti_train: ")
    assert why in line


def test_two_words_of_one_name_are_refused(run, words, tmp_path, capsys):
    other = tmp_path / "other" / words[0].name
    other.parent.mkdir()
    other.write_bytes(words[1].read_bytes())
    assert run(embeddings=[words[0], other]) == 1
    assert "have the same name" in capsys.readouterr().err


def test_other_settings_in_the_same_folder_are_told(run, tmp_path, capsys):
    assert run("--prompts", str(edits(tmp_path))) == 0
    assert run("--prompts", str(edits(tmp_path)), "--steps", "3") == 1
    assert "steps 2, now 3" in capsys.readouterr().err


def test_ddim_takes_the_place_of_the_folders_sampler(pipeline_folder):
    """Against the update by hand (Song et al. 2021, eq. 12, eta 0), whatever the folder's sampler is."""
    from diffusers import PNDMScheduler

    from ti_train.hosts.base import SampleRequest
    from ti_train.hosts.diffusers import DiffusersHost
    from ti_train.hosts.diffusers_ddim import sample_with_ddim

    host = DiffusersHost.load(pipeline_folder, "cpu", "float32")
    host.pipeline.scheduler = PNDMScheduler.from_config(host.pipeline.scheduler.config)
    sample_with_ddim(host)
    (picture,) = host.sample(SampleRequest((("a cat",),), (5,), 16, 16, steps=4, guidance=3.0), {})

    cond, empty = host.encode([("a cat",)], {}), host.encode([("",)], {})
    alphas = 1 / (1 + host.sigmas**2)
    side = 16 // host.pipeline.vae_scale_factor
    x = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        for t in (751, 501, 251, 1):
            now, after = alphas[t], alphas[max(t - 250, 0)]
            noisy, sigma = x / now.sqrt(), host.sigmas[t : t + 1]
            with_text, without = host.predict(noisy, sigma, cond), host.predict(noisy, sigma, empty)
            eps = without + 3.0 * (with_text - without)
            x = after.sqrt() * (x - (1 - now).sqrt() * eps) / now.sqrt() + (1 - after).sqrt() * eps
        pixels = host.vae.decode(x / host.vae.config.scaling_factor).sample[0].permute(1, 2, 0)
    expected = ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().numpy()
    assert np.abs(np.asarray(picture, float) - expected).max() <= 1
