data_path: str
