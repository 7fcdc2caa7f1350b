"""Draws the registry's icon and banner, and the thumbnails of the example workflows, from the demo's pictures.

usage: python -m registry.draw     (Pillow 10.1 or newer)
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ti_train.hosts.families import BY_CLASS

ROOT = Path(__file__).resolve().parent.parent
CELL, LEFT, ACROSS = 128, 190, 138  # of the sheet demo/before-after.png, in pixels
TOPS = {"training": 46, "before": 184, "after": 322, "places": 460, "styles": 616, "pairs": 772}
PAPER, INK, FAINT = "#17191d", "#f2f2f2", "#9aa3ad"


def cell(row: str, column: int, side: int) -> Image.Image:
    """A picture of the demo's sheet."""
    left, top = LEFT + column * ACROSS, TOPS[row]
    with Image.open(ROOT / "demo" / "before-after.png") as sheet:
        picture = sheet.convert("RGB").crop((left, top, left + CELL, top + CELL))
    return picture.resize((side, side), Image.Resampling.LANCZOS)


def concept(name: str, number: int, side: int) -> Image.Image:
    with Image.open(ROOT / "demo" / "concepts" / name / f"{number}.png") as picture:
        return picture.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)


def icon() -> Image.Image:
    """A trained concept and the sign that stands for it in a prompt; 400 x 400, the registry's largest."""
    picture = cell("training", 2, 400)
    ImageDraw.Draw(picture).text((318, 350), "*", "white", ImageFont.load_default(230), anchor="mm")
    return picture


def banner() -> Image.Image:
    """21:9: three images become an embedding, and the embedding new images."""
    picture = Image.new("RGB", (1260, 540), PAPER)
    pen = ImageDraw.Draw(picture)
    pen.text((60, 60), "ti-train", INK, ImageFont.load_default(78))
    pen.text((60, 160), "An embedding of your cat, your toy, your style,", FAINT, ImageFont.load_default(34))
    pen.text((60, 204), "trained on 3 to 5 images.", FAINT, ImageFont.load_default(34))
    for i in range(3):
        picture.paste(cell("training", i, 164), (60 + 176 * i, 300))
    pen.text((630, 385), "*", INK, ImageFont.load_default(120), anchor="mm")
    for i, (row, column) in enumerate((("places", 0), ("styles", 1), ("pairs", 3))):
        picture.paste(cell(row, column, 164), (684 + 176 * i, 300))
    return picture


def thumbnail(pictures: list[Image.Image]) -> Image.Image:
    """Four pictures in a square, 512 pixels a side."""
    square = Image.new("RGB", (512, 512), PAPER)
    for i, picture in enumerate(pictures):
        square.paste(picture, (8 + 252 * (i % 2), 8 + 252 * (i // 2)))
    return square


def family_card(title: str, class_name: str, concept_name: str) -> Image.Image:
    """What a template of a family is for: training images on top, below them its title and its text encoders.

    No image of the family's own: this project has none.
    """
    family = BY_CLASS[class_name]
    card = Image.new("RGB", (512, 512), PAPER)
    for i in range(3):
        card.paste(concept(concept_name, i, 160), (8 + 168 * i, 8))
    pen = ImageDraw.Draw(card)
    pen.text((256, 222), "*", INK, ImageFont.load_default(90), anchor="mm")
    largest = next(size for size in range(80, 0, -2) if ImageFont.load_default(size).getlength(title) < 480)
    pen.text((256, 318), title, INK, ImageFont.load_default(largest), anchor="mm")
    pen.text(
        (256, 404),
        "text encoders" if len(family.encoders) > 1 else "text encoder",
        FAINT,
        ImageFont.load_default(26),
        anchor="mm",
    )
    pen.text((256, 446), " + ".join(family.encoders), FAINT, ImageFont.load_default(32), anchor="mm")
    return card


def main() -> None:
    icon().save(ROOT / "registry" / "icon.png")
    banner().save(ROOT / "registry" / "banner.png")
    thumbnails = {
        "Quick start": [
            cell(row, i, 244) for row, i in (("training", 0), ("training", 1), ("places", 0), ("styles", 1))
        ],
        "Compare with and without the embedding": [cell(row, i, 244) for row in ("before", "after") for i in (1, 3)],
        "Two embeddings in one image": [
            cell("training", 1, 244),
            concept("lime-star", 0, 244),
            cell("pairs", 1, 244),
            cell("pairs", 3, 244),
        ],
        "Style": [concept("dusk-lines", number, 244) for number in range(4)],
    }
    for name, pictures in thumbnails.items():
        thumbnail(pictures).save(ROOT / "example_workflows" / f"{name}.jpg", quality=88)
    families = {
        "Stable Diffusion XL": ("SDXL", "rose-drop"),
        "Flux": ("Flux", "lime-star"),
        "Z-Image": ("ZImage", "magenta-moon"),
    }
    for name, (class_name, concept_name) in families.items():
        family_card(name, class_name, concept_name).save(ROOT / "example_workflows" / f"{name}.jpg", quality=88)


if __name__ == "__main__":
    main()
