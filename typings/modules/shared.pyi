from typing import Any, Self

from PIL import Image

class OptionInfo:
    section: tuple[str, str]
    def __init__(self, default: Any = ..., label: str = ..., *args: Any, **options: Any) -> None: ...
    def info(self, info: str) -> Self: ...

class Options:
    ti_train_folder: str
    ti_train_records: bool
    def add_option(self, key: str, info: OptionInfo) -> None: ...
    def __getattr__(self, name: str) -> Any: ...

class State:
    interrupted: bool
    stopping_generation: bool
    job: str
    job_no: int
    job_count: int
    textinfo: str | None
    def begin(self, job: str = ...) -> None: ...
    def end(self) -> None: ...
    def interrupt(self) -> None: ...
    def assign_current_image(self, image: Image.Image) -> None: ...

class CommandLine:
    api: bool
    api_auth: str
    embeddings_dir: str
    gradio_allowed_path: list[str]
    hide_ui_dir_config: bool
    webui_is_non_local: bool
    textual_inversion_templates_dir: str

opts: Options
state: State
cmd_opts: CommandLine
sd_model: Any
interrogator: Any
total_tqdm: Any
