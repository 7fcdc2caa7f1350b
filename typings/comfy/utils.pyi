from typing import Any

class ProgressBar:
    current: int
    total: int
    def __init__(self, total: int, node_id: str | None = ...) -> None: ...
    def update_absolute(self, value: int, total: int | None = ..., preview: Any = ...) -> None: ...
