"""The demo: a small picture world, a text-to-image model of it, and concepts to learn."""
