"""``run.compile=graph``: a whole training step captured once in CUDA graphs, and replayed for every batch.

A small model on a large GPU waits for its kernels to be launched one by one; a graph launches them all at once.
`replay` holds the step, `capture` what is CUDA's own, and beside them is what a graph cannot hold: values that are read
back (`watch`), numbers that change (`baked`), optimisers that count on the CPU (`optimizer`).
"""
