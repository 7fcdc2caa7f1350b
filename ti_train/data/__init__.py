"""The training set: from a folder of pictures, captions and masks to latents."""
