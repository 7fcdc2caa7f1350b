"""The training set: from image files, captions and masks to latents."""
