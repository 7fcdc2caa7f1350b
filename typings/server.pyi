from typing import Any, ClassVar

class PromptServer:
    instance: ClassVar[Any]
