from collections.abc import Mapping
from typing import IO, Any

class Request:
    match_info: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    path_qs: str
    host: str
    content_type: str
    async def read(self) -> bytes: ...
    async def post(self) -> Mapping[str, Any]: ...

class FileField:
    filename: str
    file: IO[bytes]

class Response:
    status: int
    body: Any
    headers: Mapping[str, str]
    def __init__(
        self,
        *,
        status: int = ...,
        body: bytes | None = ...,
        content_type: str | None = ...,
        headers: Mapping[str, str] | None = ...,
    ) -> None: ...

class HTTPException(Response, Exception):
    def __init__(self, *, text: str | None = ...) -> None: ...

class HTTPBadRequest(HTTPException): ...
class HTTPConflict(HTTPException): ...
class HTTPForbidden(HTTPException): ...
class HTTPNotFound(HTTPException): ...
class RequestPayloadError(Exception): ...

def json_response(data: Any = ..., *, status: int = ...) -> Response: ...
