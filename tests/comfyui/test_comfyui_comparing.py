"""Compare Embeddings and Evaluate Embedding in a running ComfyUI."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import workflows as w
from comfyui_server import Server
from PIL import Image
from tiny_clip import NAME, write_clip
from tiny_dino import write_dino

from ti_train.data.dataset import find_pictures, read_pictures
from ti_train.data.picture import bucket, crop
from ti_train.embedding import Embedding
from ti_train.evaluation.dino import Dino
from ti_train.evaluation.measures import further_measures, gallery, measured
from ti_train.formats import save_embedding

pytestmark = pytest.mark.slow
PROMPT_FILES = ("a-photo-of", "a-red")  # beginnings of the names of the samples
MODEL = {"model": ["model", 0], "clip": ["model", 1], "vae": ["model", 2]}


@pytest.fixture(scope="module")
def words(server) -> Server:
    """Two steps of one embedding, of a known initial text; and another embedding."""
    folder = server.base / "models" / "embeddings"
    torch.manual_seed(0)
    for name in ("steps-100", "steps-200", "apart"):
        vectors = {"emb_params": torch.randn(1, 768) * 0.02}
        save_embedding(Embedding(name, vectors, {"config": '{"init": "toy"}'}), folder / f"{name}.safetensors")
    return server


def comparing(**settings) -> w.Workflow:
    given = {
        "embedding_name_1": "apart.safetensors", "embedding_name_2": "none", "embedding_name_3": "none",
        "more": "steps-*", "initial_text": True, "prompts": "a photo of *\na * at night", "negative": "", "number": 2,
        "steps": 2, "guidance": 4.0, "seed": 3, "resolution": 64, "cell": 64,
    }  # fmt: skip
    return {
        "model": w.training()["model"],
        "compare": w.node("TITrain_CompareEmbeddings", **MODEL, **given | settings),
        "sheet": w.node("SaveImage", images=["compare", 0], filename_prefix="sheet"),
        "each": w.node("SaveImage", images=["compare", 1], filename_prefix="each"),
    }


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def test_several_embeddings_are_compared_in_one_sheet(words):
    """Each image is the one that KSampler makes with the same settings."""
    outputs = words.run(comparing())
    (sheet,), each = words.files(outputs, "sheet"), words.files(outputs, "each")
    assert len(each) == 2 * 4 * 2, "prompts, rows (the initial text, apart and two steps), seeds"
    assert Image.open(sheet).height == 46 + 8 * (64 + 10 + 18) + 2 * 30 + 10
    workflow = {"model": w.training()["model"]} | w.sampling(
        "a photo of embedding:apart", ["model", 1], "apart", seed=4, steps=2
    )
    (theirs,) = words.files(words.run(workflow), "save")
    # first prompt, second row, second seed; ComfyUI rounds down where the adapter rounds to the nearest
    assert np.abs(pixels(each[3]) - pixels(theirs)).max() <= 1
    assert np.abs(pixels(each[3]) - pixels(each[5])).max() > 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"more": "stepss-100"}, "No file in the embeddings folders is named 'stepss-100'. There are steps-100"),
        ({"prompts": "a photo"}, r"'a photo' in prompts lacks \*"),
        ({"embedding_name_1": "none", "more": ""}, "No embedding is chosen"),
    ],
)
def test_mistakes_are_told(words, settings, message):
    with pytest.raises(AssertionError, match=message):
        words.run(comparing(**settings))


@pytest.fixture(scope="module")
def clip_weights(words) -> str:
    """A file of a small CLIP in the host's folder, and its model made known to open_clip in the host."""
    folder = words.base / "models" / "clip_vision"
    folder.mkdir(exist_ok=True)
    weights = write_clip(folder)
    words.run({"known": w.node("ProbeClip", config=str(folder / f"{NAME}.json"))})
    return weights.name


def evaluating(clip_weights: str, **settings) -> w.Workflow:
    given = {
        "embedding_name": "apart.safetensors", "clip_weights": clip_weights, "clip_model": NAME, "kind": "object",
        "prompts": "a red *\na * at night", "number": 2, "steps": 2, "guidance": 4.0, "seed": 0, "resolution": 64,
        "images": ["pictures", 0],
    }  # fmt: skip
    base = w.training()
    return {
        "model": base["model"],
        "pictures": base["pictures"],
        "evaluate": {"class_type": "TITrain_EvaluateEmbedding", "inputs": MODEL | given | settings},
        "plot": w.node("SaveImage", images=["evaluate", 1], filename_prefix="plot"),
    }


def test_an_embedding_is_measured_as_the_command_measures_it(words, clip_weights):
    outputs = words.run(evaluating(clip_weights))
    (text,) = outputs["evaluate"]["text"]
    assert [line.split("  ")[0] for line in text.splitlines()[1:4]] == [
        "training pictures", 'initial text "toy"', "apart",
    ]  # fmt: skip
    with (words.base / "output" / "evaluation" / "apart" / "evaluation.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows] == ["training pictures", "initial word", "word"]
    assert {"a red *", "a * at night"} < set(rows[0])
    assert all(-1 <= float(row["image_similarity"]) <= 1 for row in rows)
    assert f"{float(rows[2]['image_similarity']):.3f}" in text.splitlines()[3]
    assert words.files(outputs, "plot")


def test_its_figures_follow_from_the_images_by_another_computation(words, clip_weights):
    """The samples are those of KSampler (see above); here the features and cosines are computed one at a time."""
    import open_clip

    words.run(evaluating(clip_weights, seed=7, prompts="a red *"))
    folders = (words.base / "temp" / "ti_train" / "evaluation").glob("*/apart")
    folder = max(folders, key=lambda found: found.stat().st_mtime)
    weights = words.base / "models" / "clip_vision" / clip_weights
    clip, _, preprocess = open_clip.create_model_and_transforms(NAME, pretrained=str(weights))

    @torch.no_grad()
    def encoded(image: Image.Image) -> np.ndarray:
        features = clip.eval().encode_image(preprocess(image.convert("RGB"))[None])[0].numpy()
        return features / np.linalg.norm(features)

    toys = [Image.open(path) for path in sorted((words.base / "input" / "toys").glob("*.png"))]
    own = [encoded(Image.fromarray(crop(toy.convert("RGB"), bucket(toy.size, 64))[0])) for toy in toys]
    plain, edited = ([encoded(Image.open(path)) for path in folder.glob(f"{name}-*.png")] for name in PROMPT_FILES)
    with torch.no_grad():
        text = clip.encode_text(open_clip.tokenize(["a red"]))[0].numpy()
    mean = np.mean(edited, axis=0)
    with (words.base / "output" / "evaluation" / "apart" / "evaluation.csv").open(encoding="utf-8") as file:
        row = list(csv.DictReader(file))[2]
    assert len(plain) == len(edited) == 2
    expected = np.mean([sample @ one for sample in plain for one in own])
    assert float(row["image_similarity"]) == pytest.approx(expected, abs=1e-3)
    cosine = mean @ text / (np.linalg.norm(mean) * np.linalg.norm(text))
    assert float(row["a red *"]) == pytest.approx(cosine, abs=1e-3)


def test_what_is_not_used_is_said_in_the_text(words, clip_weights):
    workflow = evaluating(clip_weights, prompts="a red *\na <blu> *", word="cat")
    both = {"embedding_name_1": "apart.safetensors", "embedding_name_2": "apart.safetensors"}
    workflow["load"] = w.node("TITrain_MergeEmbeddings", how="sum", weight_1=1.0, weight_2=1.0, **both)
    workflow["evaluate"]["inputs"] |= {"embedding": ["load", 0]}
    (text,) = words.run(workflow)["evaluate"]["text"]
    for remark in (
        "The file 'apart.safetensors' has no effect: the connected embedding 'apart-apart' is used.",
        "word 'cat' has no effect: the connected embedding 'apart-apart' is used.",
        "<blu> in the prompt 'a <blu> *' is read as plain text",
        "no initial text",
    ):
        assert remark in text
        assert remark in words.said()


def test_masks_that_are_not_used_are_said_in_the_text_too(words, clip_weights):
    folder = words.base / "input" / "marked"
    shutil.copytree(words.base / "input" / "toys", folder)
    Image.fromarray(np.pad(np.full((40, 40), 255, np.uint8), 12)).save(folder / "blue-mask.png")
    workflow = evaluating(clip_weights, prompts="a red *", number=1)
    workflow["pictures"]["inputs"] |= {"folder": "marked", "use_masks": False}
    (text,) = words.run(workflow)["evaluate"]["text"]
    assert "The masks of 1 images are not used: use_masks is off in Load Training Images." in text
    workflow["pictures"]["inputs"]["use_masks"] = True
    workflow["inverted"] = w.node("ImageInvert", image=["pictures", 0])
    workflow["evaluate"]["inputs"]["images"] = ["inverted", 0]
    (text,) = words.run(workflow)["evaluate"]["text"]
    assert re.search(  # the node's name is another one in ComfyUI 0.3
        r"The masks of Load Training Images do not pass Invert Image( Colors)?\. Connect its output masks", text
    )


def test_without_weights_it_says_which(words):
    with pytest.raises(AssertionError, match=r"choose clip_weights\. The paper's is open_clip_model"):
        words.run(evaluating("none"))


def test_masks_look_alikes_and_dino_are_measured_as_the_command_does(words, clip_weights):
    """The figures are those of the command's own measures, from the samples that the node has left."""
    folder = words.base / "input" / "measured"
    shutil.copytree(words.base / "input" / "toys", folder)
    (folder / "red.txt").unlink()
    Image.fromarray(np.pad(np.full((40, 40), 255, np.uint8), 12)).save(folder / "blue-mask.png")
    others = words.base / "input" / "shelf" / "dog"
    others.mkdir(parents=True)
    for number in range(3):
        Image.effect_noise((64, 64), 60 + number).convert("RGB").save(others / f"{number}.png")
    shutil.copytree(words.base / "input" / "toys", words.base / "input" / "shelf" / "toys")
    write_dino(words.base / "models" / "clip_vision" / "dino")

    workflow = evaluating(clip_weights, seed=11, dino="dino", gallery=["shelf", 0])
    workflow["pictures"]["inputs"]["folder"] = "measured"
    workflow["shelf"] = w.node("TITrain_LoadTrainingImages", folder="shelf", subfolders=True)
    (text,) = words.run(workflow)["evaluate"]["text"]
    with (words.base / "output" / "evaluation" / "apart" / "evaluation.csv").open(encoding="utf-8") as file:
        row = list(csv.DictReader(file))[2]
    columns = ["DINOv2", "DINOv2, subject alone", "DINOv2, background alone", "DINOv2, found among others"]
    assert [column for column in row if column.startswith("DINOv2")] == columns
    assert all(column in text for column in columns)

    found = (words.base / "temp" / "ti_train" / "evaluation").glob("*/apart")
    made = max(found, key=lambda each: each.stat().st_mtime).glob(f"{PROMPT_FILES[0]}-*.png")
    samples = [Image.open(path).convert("RGB") for path in sorted(made)]
    features = Dino.load(words.base / "models" / "clip_vision" / "dino").features
    pictures = list(read_pictures(find_pictures(folder), 64, []))
    look_alikes = gallery(words.base / "input" / "shelf", pictures, 64, [])
    expected = measured(further_measures(pictures, look_alikes, features, features), samples)
    assert {column: float(row[column]) for column in columns} == pytest.approx(expected, abs=2e-3)
