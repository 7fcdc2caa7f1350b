"""The parts of gpu.py. Each has `measure(options)`, a generator of findings, and runs in a process of its own."""
