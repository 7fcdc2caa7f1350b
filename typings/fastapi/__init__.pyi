from collections.abc import Callable, Mapping
from typing import Any

class HTTPException(Exception):
    def __init__(self, status_code: int, detail: Any = ..., headers: dict[str, str] | None = ...) -> None: ...

class Request:
    headers: Mapping[str, str]

class FastAPI:
    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None: ...

def Depends(dependency: Callable[..., Any] | None = ...) -> Any: ...
def Query(default: Any = ..., **options: Any) -> Any: ...
