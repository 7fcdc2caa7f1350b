from PIL import Image

class DeepDanbooru:
    def tag(self, pil_image: Image.Image) -> str: ...

model: DeepDanbooru
