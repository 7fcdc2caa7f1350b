"""What users do in the tab while a training runs, whose state the page asks for every second."""

from __future__ import annotations

import base64
import re
import time
from pathlib import Path

import pytest
from jobs_over_http import API, begin, status, until, write_toys
from PIL import Image
from tab_page import beside, chosen, expect, fill, new_page, opened, says, shot, upload

from ti_train.training.config import OPTIONS

pytestmark = pytest.mark.slow
SEVERAL = 3  # files at a time
SLOWLY = 700  # milliseconds between keys
TWO_LINES = "a red one\non a table\n"


@pytest.fixture(scope="module")
def training(browser, server):
    """The tab, with a training that runs until the end of the tests."""
    write_toys(server)
    (server.base / "ti-train" / "pictures" / "toys" / "red.txt").write_text(TWO_LINES)
    job = begin(server, name="longtoy", steps=100_000)
    page = new_page(browser, server)
    says(page, "longtoy is training.*Step [1-9]")
    beside(page, "2 image(s)")
    opened(page, "More")
    opened(page, "Captions")
    yield page
    server.post(f"{API}/interrupt", {"id": job})
    until(server, job, "interrupted")


def drawn(folder: Path, number: int) -> list[str]:
    files = [folder / f"{number}-{part}.png" for part in range(SEVERAL)]
    for part, file in enumerate(files):
        Image.new("RGB", (80, 64), (40 * number, 80 * part, 90)).save(file)
    return [str(file) for file in files]


@pytest.mark.parametrize("number", range(5))
def test_no_upload_is_lost(training, server, tmp_path, number):
    """Of several files, on a connection that is so slow that the page asks meanwhile."""
    uploads = re.compile(r"/upload(\?|$)")
    training.route(uploads, lambda route: (time.sleep(2.5), route.continue_()))
    upload(training, drawn(tmp_path, number))
    beside(training, f"{2 + SEVERAL * (number + 1)} image(s)")
    training.unroute(uploads)
    assert len(list((server.base / "ti-train" / "pictures" / "toys").glob(f"{number}-*.png"))) == SEVERAL


def test_files_can_be_dropped(training, server, tmp_path):
    files = [[Path(file).name, base64.b64encode(Path(file).read_bytes()).decode()] for file in drawn(tmp_path, 5)]
    transfer = training.evaluate_handle(
        """async (files) => {
            const all = new DataTransfer();
            for (const [name, data] of files) {
                const bytes = await (await fetch("data:image/png;base64," + data)).arrayBuffer();
                all.items.add(new File([bytes], name, {type: "image/png"}));
            }
            return all;
        }""",
        files,
    )
    training.locator("#ti_train_upload button").dispatch_event("drop", {"dataTransfer": transfer})
    beside(training, "20 image(s)")
    shot(training, server, "dropped")
    assert len(list((server.base / "ti-train" / "pictures" / "toys").glob("5-*.png"))) == SEVERAL


@pytest.mark.parametrize(("field", "text"), [("preview_negative", "dark"), ("pull", "0.25"), ("timesteps", "500-899")])
def test_a_field_keeps_what_is_typed(training, field, text):
    box = training.locator(f"#ti_train_{field} input, #ti_train_{field} textarea").first
    box.click()
    box.press("Control+a")
    box.press_sequentially(text, delay=SLOWLY)
    box.press("Tab")
    training.wait_for_timeout(1500)
    expect(box).to_have_value(text)


def test_a_list_stays_open(training):
    training.locator("#ti_train_optimizer input").first.click()
    training.wait_for_timeout(3500)
    training.locator("#ti_train_optimizer [role=option], #ti_train_optimizer li").filter(
        has_text="sphere"
    ).first.click()
    training.wait_for_timeout(1500)
    expect(training.locator("#ti_train_optimizer input").first).to_have_value("sphere")


def test_a_caption_is_typed_and_saved_and_the_others_stay_as_they_are(training, server):
    training.locator("#ti_train_captions").scroll_into_view_if_needed()
    training.locator("#ti_train_captions table").last.locator("tbody td").nth(1).dblclick()
    training.keyboard.type("a blue one", delay=SLOWLY)
    training.keyboard.press("Enter")
    training.wait_for_timeout(1500)
    training.locator("#ti_train_write_captions").click()
    expect(training.locator("#ti_train_captions_written").first).to_contain_text("1 caption(s) saved")
    written = [file.read_text() for file in (server.base / "ti-train" / "pictures" / "toys").glob("*.txt")]
    assert sorted(written) == ["a blue one", TWO_LINES]


def test_a_click_that_comes_before_an_answer_has_the_chosen_preset(training, server):
    fill(training, "steps", str(OPTIONS["steps"].presets["Balanced"]))
    fill(training, "name", "hasty")
    chosen(training, "preset", "Paper")
    training.locator("#ti_train_start").click()
    says(training, "hasty is queued")
    job = training.evaluate("ti_train_followed")
    assert status(server, job)["steps"] == OPTIONS["steps"].presets["Paper"]
    server.post(f"{API}/interrupt", {"id": job})
