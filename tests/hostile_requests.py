"""Requests that no page of ours sends, for every route of ComfyUI's page, and what must be true of the answers.

Those of pages of other sites are for the WebUIs too.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import torch
from PIL import Image

from ti_train.embedding import Embedding
from ti_train.formats import save_embedding
from ti_train.text import printable

SECRET, UNLISTED = "beside", "unlisted"  # a folder beside the input directory, and what is in it
RUN = "0123456789abcdef" * 2
LONGEST_PATH = 8000  # characters; aiohttp itself refuses longer ones
JSON, FORM = "application/json", "multipart/form-data; boundary=x"
NAMES = (
    *("", " ", ".", "..", "../" + SECRET, f"../{SECRET}/a.png", "a/../../..", "/", "/etc/passwd", "/proc/self/environ"),
    *(
        "C:\\Windows\\win.ini",
        f"..\\{SECRET}\\a.png",
        "\\\\server\\share\\a.png",
        "file:///etc/passwd",
        "~",
        "~root/a.png",
    ),
    *("a\0b.png", "\0", "a.png\0.txt", "%2e%2e%2f", "x" * 300, "x" * 300 + ".png", "x/" * 500 + "a.png", "a" * 3500),
    *(
        name[: -len(ending)] + ending
        for name in ("x" * 251, "x" * 255, "猫" * 83)
        for ending in (".png", ".safetensors")
    ),
    *(
        "\ud83d",
        "\u202egnp.a",
        "\x1b[2J",
        "猫.png",
        "e\u0301",
        "CON",
        "nul.png",
        "a.png/",
        "a.png/b.png",
        ".hidden.png",
    ),
    *("self", "asked", "{}", "[]", "null", "-1", "1e999", "9" * 5000, "²", "٣", "<script>", "';--", "a\r\nX-Own: b"),
)
VALUES = (None, True, 0, -1, 1e308, 2**70, [], ["a.png"], {}, {"a": 1}, "")
BODIES = (
    *(b"", b"{", b"null", b"7", b"[]", b'"x"', b"\xff\xfe", b"\0" * 9, b"[" * 100_000, b'{"a":' * 50_000, b"9" * 5000),
    *(b'{"file": "\\ud83d"}', b"NaN", b'{"file": 1e999}', "{}".encode("utf-16")),
)


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.method} {self.path[:120]} {self.body[:120]!r} {dict(self.headers)}"


Send = Callable[[Request], tuple[int, bytes]]


def get(path: str, **query: str) -> Request:
    asked = urlencode(query, errors="surrogatepass")
    return Request("GET", f"/ti_train/{path}" + (f"?{asked}" if asked else ""))


def post(path: str, body: Any) -> Request:
    return Request("POST", f"/ti_train/{path}", json.dumps(body).encode(), {"Content-Type": JSON})


def form(**parts: str) -> Request:
    """parts: the fields; table is a file, whose name is in table_name."""
    name = parts.pop("table_name", "metadata.csv")
    of_file = {"table": f"; filename={json.dumps(name)}"}
    head = '--x\r\nContent-Disposition: form-data; name="{}"{}\r\n\r\n{}\r\n'
    lines = [head.format(key, of_file.get(key, ""), text) for key, text in parts.items()]
    body = ("".join(lines) + "--x--\r\n").encode("utf-8", "surrogatepass")
    return Request("POST", "/ti_train/table", body, {"Content-Type": FORM})


def segment(text: str) -> str:
    """One part of a path."""
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


TABLE = f"file_name,text\na.png,red\n../{SECRET}/a.png,red\n"
VALID = {  # route -> a request of the page that it answers, and that changes something if it is a POST
    "GET /ti_train/runs": get("runs"),
    "GET /ti_train/records": get("records"),
    "GET /ti_train/runs/{run}": get(f"runs/{RUN}"),
    "GET /ti_train/runs/{run}/previews/{number}": get(f"runs/{RUN}/previews/0", small="1"),
    "GET /ti_train/embeddings": get("embeddings"),
    "GET /ti_train/pictures": get("pictures", folder="toy", resolution="512", subfolders="1", square="0"),
    "GET /ti_train/thumbnail": get("thumbnail", file="toy/a.png"),
    "POST /ti_train/runs/{run}/previews/{number}/keep": post(f"runs/{RUN}/previews/0/keep", {}),
    "POST /ti_train/runs/{run}/stop": post(f"runs/{RUN}/stop", {}),
    "POST /ti_train/page": post("page", {"client": "x"}),
    "POST /ti_train/embeddings/rename": post("embeddings/rename", {"file": "cat.safetensors", "name": "dog"}),
    "POST /ti_train/embeddings/remove": post("embeddings/remove", {"file": "dog.safetensors"}),
    "POST /ti_train/caption": post("caption", {"file": "toy/a.png", "text": "a red toy"}),
    "POST /ti_train/table": form(folder="toy", images="{}", table="file_name,text\nb.png,blue\n"),
    "POST /ti_train/remove": post("remove", {"file": "toy/b.png"}),
}
NOT_THERE = {"POST /ti_train/runs/{run}/stop"}  # no run is in memory


def hostile() -> Iterator[Request]:
    """Names, values and bodies that are wrong, at each place of each route."""
    for name in NAMES:
        part = segment(name)
        yield get("pictures", folder=name)
        yield get("pictures", folder="toy", resolution=name)
        yield get("thumbnail", file=name)
        yield get(f"runs/{part}")
        yield get(f"runs/{part}/previews/0")
        yield get(f"runs/{RUN}/previews/{part}", small=name[:50])
        yield post(f"runs/{part}/stop", {})
        yield post(f"runs/{part}/previews/0/keep", {})
        yield post(f"runs/{RUN}/previews/{part}/keep", {})
        yield post("page", {"client": name})
        yield post("caption", {"file": name, "text": "x"})
        yield post("remove", {"file": name})
        yield post("embeddings/remove", {"file": name})
        yield post("embeddings/rename", {"file": name, "name": "dog"})
        yield post("embeddings/rename", {"file": "cat.safetensors", "name": name + "/"})
        yield form(folder=name, images="{}", table=TABLE)
        yield form(folder="toy", images=json.dumps({name: name}), table=TABLE)
        yield form(folder="toy", images=json.dumps({name: f"../{SECRET}/a.png"}), table=TABLE)
        yield form(folder="toy", images=name, table=TABLE)
    for path, fields in (
        ("page", ("client",)),
        ("caption", ("file", "text")),
        ("remove", ("file",)),
        ("embeddings/remove", ("file",)),
        ("embeddings/rename", ("file", "name")),
    ):
        for body in BODIES:
            yield Request("POST", f"/ti_train/{path}", body, {"Content-Type": JSON})
        for wrong, value in itertools.product(fields, VALUES):
            yield post(path, dict.fromkeys(fields, "x") | {wrong: value})
            yield post(path, {name: "x" for name in fields if name != wrong})
    yield from (replace(form(folder="toy", images="{}", table=TABLE), body=body) for body in BODIES)
    for kind in ("", JSON, "multipart/form-data", "multipart/form-data; boundary=", FORM + "; charset=x", "text/plain"):
        yield replace(form(folder="toy", images="{}", table=TABLE), headers={"Content-Type": kind} if kind else {})
    for lacking in ("folder", "images", "table"):
        yield form(**{key: "toy" for key in ("folder", "images", "table") if key != lacking})
    encoded = {"Content-Type": "application/x-www-form-urlencoded; charset=x"}
    yield Request("POST", "/ti_train/table", b"folder=toy&images={}&table=x", encoded)


def checked(request: Request, status: int, body: bytes) -> list[str]:
    """What is wrong with an answer to a request of `hostile`."""
    wrong = []
    if status >= 500:
        wrong.append(f"status {status}: {request}: {body[:300]!r}")
    if UNLISTED.encode() in body:
        wrong.append(f"what is outside of the folders: {request}: {body[:300]!r}")
    ours = len(request.path) < LONGEST_PATH and body not in (b"404: Not Found", b"405: Method Not Allowed")
    if 400 <= status < 500 and ours:
        text = body.decode()
        if not (text.endswith(".") and text == printable(text)):
            wrong.append(f"status {status} without a sentence: {request}: {text[:300]!r}")
    return wrong


def filled(inputs: Path, embeddings: Path, user: Path) -> None:
    """Files in ComfyUI's folders, and others beside them that are nobody's business."""
    for folder in (inputs / "toy", inputs.parent / SECRET):
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("a.png", "b.png"):
            Image.linear_gradient("L").convert("RGB").save(folder / name)
    (inputs.parent / SECRET / "a.txt").write_text(UNLISTED)
    (inputs.parent / SECRET / f"{UNLISTED}.png").touch()
    (inputs / "empty").mkdir(exist_ok=True)
    (inputs / "toy" / "gone.png").symlink_to(inputs / "not there.png")
    embedding = Embedding("cat", {"emb_params": torch.ones(1, 4)}, {"step": "3"})
    embeddings.mkdir(parents=True, exist_ok=True)
    save_embedding(embedding, embeddings / "cat.safetensors")
    save_embedding(embedding, inputs.parent / SECRET / "cat.safetensors")
    run = user / "ti_train" / "runs" / RUN
    run.mkdir(parents=True, exist_ok=True)
    facts = {"id": RUN, "name": "cat", "status": "done", "prompt": "a cat", "settings": {}, "previews": []}
    (run / "run.json").write_text(json.dumps(facts))
    save_embedding(embedding, run / "0.safetensors")
    picture = io.BytesIO()
    Image.new("RGB", (64, 64)).save(picture, "JPEG")
    (run / "0.jpg").write_bytes(picture.getvalue())


def contents(folder: Path) -> dict[str, str]:
    """Each file and folder below, with a digest of what it has."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
    }


def foreign(request: Request) -> Iterator[Request]:
    """A request as a page of another site can send it; the body of no type is a Blob."""
    kind = request.headers.get("Content-Type")
    for told in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://["},
    ):
        yield replace(request, headers=told)
        yield replace(request, headers=told | {"Content-Type": kind if kind == FORM else "text/plain"})
