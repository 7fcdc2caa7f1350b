class HTTPBasicCredentials:
    username: str
    password: str

class HTTPBasic:
    def __call__(self, request: object) -> HTTPBasicCredentials: ...
