from typing import Any

class PreviewImage:
    def __init__(self, image: Any, animated: bool = ..., cls: Any = ..., **kwargs: Any) -> None: ...

class PreviewText:
    def __init__(self, value: str, **kwargs: Any) -> None: ...
