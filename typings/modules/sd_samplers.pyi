class SamplerData:
    name: str

samplers: list[SamplerData]
