"""A real WebUI on loopback with the pack linked into its extensions, spoken to over HTTP as a script would."""

from __future__ import annotations

import base64
import html
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from PIL import Image

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PYTHON = os.environ.get("WEBUI_PYTHON", sys.executable)
USER = "tester:secret"
FAMILIES = os.environ.get("WEBUI_FAMILIES", "sd1 sd2-v sdxl").split()  # or sd1-whole, for time and memory
CACHE = Path(os.environ.get("TI_TRAIN_TEST_CACHE", Path.home() / ".cache" / "ti-train-tests"))
STARTS_WITHIN, ANSWERS_WITHIN = 600, 600  # seconds
NOT_RUN = shutil.ignore_patterns(".*", "__pycache__", "tests", "demo", "benchmarks")
SETTINGS = {
    "show_progress_type": "Approx cheap",  # the default of reForge downloads a model
    "randn_source": "CPU",  # there are no generators of a pretended card
    "sd_text_encoder": "None",  # reForge would read a second one from the checkpoint's file
    "samples_save": False,
    "grid_save": False,
}


class RefusedError(Exception):
    """The server did not do what it was asked: its status and its answer, as text."""


def kind_of(webui: Path) -> str:
    """a1111, reforge or forge, by what their trees hold."""
    if (webui / "backend").is_dir():
        return "forge"
    return "reforge" if (webui / "ldm_patched").is_dir() else "a1111"


def drawn(family: str) -> Path:
    """The checkpoint of a family, with a narrow U-Net; drawn once."""
    file = CACHE / f"drawn-{family}.safetensors"
    if not file.is_file():
        subprocess.run([sys.executable, str(HERE / "draw_checkpoint.py"), str(file), family], check=True)
    return file


def clip_hub() -> Path:
    """A cache of the Hugging Face hub with CLIP's tokenizer and configuration, which A1111 asks for; written once."""
    if not (CACHE / "hub").is_dir():
        from clip_files import write_hub  # open_clip brings CLIP's vocabulary

        write_hub(CACHE / "hub")
    return CACHE / "hub"


class Server:
    """`base` holds everything that the WebUI writes: models, embeddings, extensions and settings.

    hub: a cache of the Hugging Face hub, with CLIP's tokenizer in it; None: the user's own. on_cpu: in fp32; otherwise
    as the WebUI wants it. card: GiB of a pretended CUDA device to run on.
    """

    def __init__(
        self,
        webui: Path,
        base: Path,
        hub: Path | None,
        flags: tuple[str, ...] = (),
        on_cpu: bool = True,
        card: float | None = None,
    ) -> None:
        self.base, self.kind, self.flags = base, kind_of(webui), flags
        for folder in ("extensions", "embeddings", "models/Stable-diffusion", "models/Lora"):
            (base / folder).mkdir(parents=True, exist_ok=True)
        # copies: the page gets no file that a link leads to. The probe comes last, since it looks into the pack
        probes = {"zz-probe": HERE / "probe"} | ({"zz-card-probe": HERE / "card_probe"} if card else {})
        for name, source in ({"ti-train": ROOT} | probes).items():
            if not (base / "extensions" / name).exists():
                shutil.copytree(source, base / "extensions" / name, ignore=NOT_RUN)
        shutil.copy(HERE.parent / "failing_calls.py", base / "extensions" / "zz-probe")
        (base / "config.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        cpu = ["--use-cpu", "all"] if self.kind == "a1111" else ["--always-cpu"]
        cpu += ["--no-half", "--no-half-vae"]
        self._folder = webui
        self._command = [
            PYTHON, "-u", *([str(HERE / "on_card.py"), str(card)] if card else []),
            str(webui / "launch.py"), "--data-dir", str(base),
            "--embeddings-dir", str(base / "embeddings"), "--ui-settings-file", str(base / "config.json"),
            "--ui-config-file", str(base / "ui-config.json"), "--skip-prepare-environment", "--skip-version-check",
            "--skip-torch-cuda-test", "--skip-python-version-check", "--no-download-sd-model",
            "--do-not-download-clip", "--gradio-allowed-path", str(base / "allowed"),
            "--gradio-allowed-path", str(webui), "--no-hashing", "--api", "--api-auth", USER, "--port", str(port),
            *(cpu if on_cpu and not card else ()), *flags,
        ]  # fmt: skip
        self._environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"}
        if hub is not None:
            self._environment["HF_HUB_CACHE"] = str(hub)
        self._start()

    def _start(self) -> None:
        self.log = (self.base / "server.log").open("wb")
        self.process = subprocess.Popen(
            self._command, cwd=self._folder, stdout=self.log, stderr=subprocess.STDOUT, env=self._environment,
            start_new_session=True,
        )  # fmt: skip
        self._wait_until_started()

    def restart(self) -> None:
        """Ends it without a warning and starts it anew, on the same files and at the same address."""
        self.stop()
        self._start()

    def _wait_until_started(self) -> None:
        """Requests before the log says so run without scripts."""
        deadline = time.monotonic() + STARTS_WITHIN
        while time.monotonic() < deadline and self.process.poll() is None:
            if "Startup time:" in self.said():
                return
            time.sleep(0.3)
        self.stop()
        raise RuntimeError("The WebUI does not start:\n" + self.said()[-3000:])

    def stop(self) -> None:
        if self.process.poll() is None:
            if hasattr(os, "killpg"):  # the WebUI asks before it leaves
                os.killpg(self.process.pid, signal.SIGKILL)
            else:  # Windows
                self.process.kill()
            self.process.wait()
        self.log.close()

    def said(self) -> str:
        return (self.base / "server.log").read_text(encoding="utf-8", errors="replace")

    def get(self, path: str, user: str = USER) -> Any:
        return self._ask(path, None, user)

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        return self._ask(path, json.dumps(body or {}).encode(), USER)

    def _ask(self, path: str, data: bytes | None, user: str) -> Any:
        headers = {
            "Content-Type": "application/json",
            "Authorization": "Basic " + base64.b64encode(user.encode()).decode(),
        }
        request = urllib.request.Request(self.url + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=ANSWERS_WITHIN) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            raise RefusedError(f"{error.code}: {error.read().decode(errors='replace')}") from None

    def picture(self, prompt: str, **settings: Any) -> bytes:
        """The pixels of a picture by the WebUI's own API."""
        body = {"prompt": prompt, "seed": 1, "steps": 2, "width": 64, "height": 64, "sampler_name": "Euler"}
        answer = self.post("/sdapi/v1/txt2img", body | settings)
        return Image.open(io.BytesIO(base64.b64decode(answer["images"][0]))).convert("RGB").tobytes()

    def picture_of_card(self, word: str) -> bytes:
        """The file of the picture that the extra networks show for an embedding, once they are refreshed."""
        self.post("/ti-train-test/refresh-cards")
        asked = {"page": "textual inversion", "tabname": "txt2img", "name": word}
        card = self.get("/sd_extra_networks/get-single-card?" + urllib.parse.urlencode(asked))["html"]
        shown = re.search('<img src="([^"]*)"', card)
        assert shown, card
        with urllib.request.urlopen(self.url + "/" + html.unescape(shown[1]).removeprefix("./")) as answer:
            return bytes(answer.read())

    def peak_memory(self) -> int:
        """Bytes of memory that the process had at most."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def start(
    webui: Path, checkpoint: Path, hub: Path, base: Path, flags: tuple[str, ...] = (), card: float | None = None
) -> Server:
    (base / "models" / "Stable-diffusion").mkdir(parents=True)
    for file in (checkpoint, checkpoint.with_suffix(".yaml")):
        if file.exists():
            (base / "models" / "Stable-diffusion" / f"drawn{file.suffix}").symlink_to(file)
    return Server(webui, base, hub, flags, card=card)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
