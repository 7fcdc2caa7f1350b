"""The parts of quality.py: the worlds with their judges, the arms, the records of trained embeddings, the tables."""
