"""HTML of the tab: a job's summary and chart, notes, and the table of embeddings."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from time import monotonic
from typing import Any

from ..ti_train.drawing.loss_curves import Point
from ..ti_train.drawing.loss_plot import LEGEND, axes_of, beside, loss_marks, outline_of, step_marks
from . import jobs
from .pictures import Shown
from .request import captions_left_out

WIDTH, HEIGHT = 780, 320  # with room for half of the last step mark
LEFT, TOP, RIGHT, BOTTOM = 70, 30, 750, 285
WAITING = "<div class='ti-train-note'>The loss chart appears here during training.</div>"
STOPPED = "It was stopped before its last step: Resume continues it."
STATE_TEXTS = {
    jobs.QUEUED: "is queued",
    jobs.RUNNING: "is training",
    jobs.DONE: "is trained",
    jobs.INTERRUPTED: "was interrupted",
    jobs.FAILED: "failed",
}


def summary(job: jobs.Job, again: float = 0.0) -> str:
    """The state of a job in a few lines. again: seconds after which the page asks again."""
    unfinished = "" if job.ended.is_set() else " ti-train-unfinished"  # it asks again; read before the state
    times = f"data-again='{again:.2f}' data-at='{monotonic():.2f}'"  # at: tells it that this is another answer
    lines = [f"<b>{escape(job.request.name)}</b> {STATE_TEXTS[job.state]}."]
    session = job.session
    if session.steps:
        last, measured = session.steps[-1], session.validation_loss
        validation = f", validation loss {measured:#.4g}" if measured is not None else ""
        lines.append(f"Step {last.step} of {job.config.steps}{validation}, {last.seconds:.0f} s.")
    left = session.pace.seconds_left
    if job.state == jobs.RUNNING:
        ends = job.stopped or job.keep
        lines += ["Ends after the current step."] if ends else [f"About {left:.0f} s left."] if left else []
        lines += [] if session.steps else [f"{job.doing} ..."]
    if session.done:
        lines.append(escape(session.done.why + ("" if session.done.complete else " " + STOPPED)))
    if job.state == jobs.DONE:
        lines.append(f"Use it in any prompt as <code>{escape(session.file.stem)}</code>.")
    lines += [f"<span class='ti-train-remark'>{escape(message)}</span>" for message in job.messages]
    if job.error:
        lines.append(f"<span class='error'>{escape(job.error)}</span>")
    return f"<div class='ti-train-summary{unfinished}' {times}>{bar(job)}{'<br>'.join(lines)}</div>"


def bar(job: jobs.Job) -> str:
    """What share of the steps of a running job is done, as the WebUI's own bar shows it."""
    if job.state != jobs.RUNNING:
        return ""
    steps = job.session.steps
    share = 100 * steps[-1].step / job.config.steps if steps else 0
    return (
        f"<div class='ti-train-bar'><div class='progressDiv'><div class='progress' style='width: {share:.1f}%'>"
        f"{share:.0f}%</div></div></div>"
    )


def error_note(message: str) -> str:
    return f"<div class='ti-train-summary'><span class='error'>{escape(message)}</span></div>"


def written(text: str) -> str:
    return "<div class='ti-train-summary'>" + "<br>".join(map(escape, text.splitlines())) + "</div>"


def chart(job: jobs.Job) -> str:
    """The losses so far as SVG, in the page's font and colors; Pillow versions of the WebUIs differ."""
    curves = job.session.curves
    if len(list(curves.loss)) < 2:
        return WAITING
    axes = axes_of(curves, (LEFT, TOP, RIGHT, BOTTOM))

    def line(points: Iterable[Point], kind: str) -> str:
        corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in (axes.place(*point) for point in points))
        return f"<polyline class='{kind}' points='{corners}'/>"

    corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in outline_of(curves, axes))
    drawn = [f"<polygon points='{corners}'/>", f"<text x='{RIGHT}' y='16' text-anchor='end'>{LEGEND}</text>"]
    for value, text in loss_marks(axes).items():
        _, y = axes.place(0, value)
        drawn.append(f"<line x1='{LEFT}' x2='{RIGHT}' y1='{y:.1f}' y2='{y:.1f}'/>")
        drawn.append(f"<text x='{LEFT - 8}' y='{y + 4:.1f}' text-anchor='end'>{text}</text>")
    for step, text in step_marks(axes).items():
        x, _ = axes.place(step, axes.up[0])
        drawn.append(f"<text x='{x:.1f}' y='{BOTTOM + 20}' text-anchor='middle'>{text}</text>")
    drawn += [line(beside(curves, axes), "noisy"), line(curves.validation_losses, "measured")]
    if job.session.kept:
        x, y = axes.place(*job.session.kept)
        drawn.append(f"<circle class='best' cx='{x:.1f}' cy='{y:.1f}' r='5'/>")
    return f"<svg class='ti-train-chart' viewBox='0 0 {WIDTH} {HEIGHT}' role='img'>{''.join(drawn)}</svg>"


def pictures_note(found: Shown, templates: str) -> str:
    """How many images, masks and captions a folder has, and problems with its files. templates: that are chosen."""
    captions = sum(bool(caption) for _, caption in found.captions)
    parts = [f"{len(found.thumbnails)} image(s)"]
    parts += [f"{found.masks} with a mask (faded areas are not trained)"] if found.masks else []
    parts += [f"{captions} with a caption"] if captions else []
    lines = [escape(", ".join(parts) + ".")]
    problems = [*captions_left_out([caption for _, caption in found.captions], templates), *found.problems]
    lines += [f"<span class='error'>{escape(problem)}</span>" for problem in problems]
    return "<div class='ti-train-note'>" + "<br>".join(lines) + "</div>"


def embedding_table(rows: list[dict[str, Any]]) -> str:
    """The files of the embeddings folder."""
    if not rows:
        return "<div class='ti-train-note'>The embeddings folder is empty.</div>"

    def line(row: dict[str, Any]) -> str:
        cells = [f"<code>{escape(str(row['name']))}</code>", escape(str(row["file"]))]
        if "problem" in row:
            return f"<tr><td>{'</td><td>'.join(cells)}</td><td colspan='4'>{escape(str(row['problem']))}</td></tr>"
        widths = " + ".join(map(str, row["widths"]))
        step = "" if row["step"] is None else row["step"]
        cells += [str(cell) for cell in (row["vectors"], widths, step, escape(str(row["layout"])))]
        clicked = f"data-file='{escape(str(row['file']))}' tabindex='0' role='button' onclick='ti_train_choose(this)'"
        key = "if (event.key === 'Enter') ti_train_choose(this)"
        return f'<tr {clicked} onkeydown="{key}"><td>{"</td><td>".join(cells)}</td></tr>'

    columns = ("embedding", "file", "vectors", "width", "steps", "layout")
    head = "".join(f"<th>{column}</th>" for column in columns)
    table = f"<table class='ti-train-embeddings'><tr>{head}</tr>{''.join(map(line, rows))}</table>"
    return f"<div class='ti-train-list'>{table}</div>"
