"""What the tab shows of a job, as HTML."""

from __future__ import annotations

import base64
import io
from html import escape

from ..ti_train.report import loss_plot
from . import jobs

WAITING = "<div class='ti-train-note'>The chart of the loss appears here when a training runs.</div>"
IN_WORDS = {
    jobs.QUEUED: "waits for its turn",
    jobs.RUNNING: "is being learnt",
    jobs.DONE: "is learnt",
    jobs.INTERRUPTED: "was interrupted",
    jobs.FAILED: "could not be learnt",
}


def summary(job: jobs.Job) -> str:
    """The state of a job in a few lines."""
    lines = [f"<b>{escape(job.request.name)}</b> {IN_WORDS[job.state]}."]
    if job.steps:
        last = job.steps[-1]
        noise_free = f", noise-free loss {job.noise_free_loss:.4f}" if job.noise_free_loss is not None else ""
        lines.append(f"Step {last.step} of {job.config.steps}{noise_free}, {last.seconds:.0f} s.")
    left = job.seconds_left()
    if job.state == jobs.RUNNING and left:
        lines.append(f"About {left:.0f} s left.")
    if job.state == jobs.DONE:
        lines.append(f"Write <code>{escape(job.request.name)}</code> in any prompt.")
    if job.state == jobs.INTERRUPTED:
        lines.append("What was learnt is kept; Resume goes on from there.")
    lines += [f"<span class='ti-train-remark'>{escape(message)}</span>" for message in job.messages]
    if job.error:
        lines.append(f"<span class='error'>{escape(job.error)}</span>")
    return "<div class='ti-train-summary'>" + "<br>".join(lines) + "</div>"


def mistake(message: str) -> str:
    return f"<div class='ti-train-summary'><span class='error'>{escape(message)}</span></div>"


def chart(job: jobs.Job) -> str:
    """The loss so far, drawn."""
    if len(job.steps) < 2:
        return WAITING
    file = io.BytesIO()
    loss_plot(job.steps, job.request.name, 760, 340).save(file, "PNG")
    picture = base64.b64encode(file.getvalue()).decode()
    return f"<img class='ti-train-chart' alt='loss over the steps' src='data:image/png;base64,{picture}'>"


def word_table(rows: list[dict[str, object]]) -> str:
    """The words of the embeddings folder."""
    if not rows:
        return "<div class='ti-train-note'>The embeddings folder has no .safetensors words yet.</div>"

    def line(row: dict[str, object]) -> str:
        name = escape(str(row["name"]))
        if "problem" in row:
            return f"<tr><td>{name}</td><td colspan='3'>{escape(str(row['problem']))}</td></tr>"
        widths = " + ".join(map(str, row["widths"]))  # type: ignore[call-overload]
        step = "" if row["step"] is None else row["step"]
        return f"<tr><td><code>{name}</code></td><td>{row['vectors']}</td><td>{widths}</td><td>{step}</td></tr>"

    head = "<tr><th>word</th><th>vectors</th><th>width</th><th>steps learnt</th></tr>"
    return f"<table class='ti-train-words'>{head}{''.join(map(line, rows))}</table>"
