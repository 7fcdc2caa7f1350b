"""How a WebUI samples previews, where the user asks for nothing else."""

from ...host import Sampling

SAMPLING = Sampling(sampler="Euler")  # available in every WebUI, and adds no noise
