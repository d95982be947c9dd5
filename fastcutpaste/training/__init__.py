"""Batches, a pretext task and a network in, the network's weights out; checkpoints, logs and processes on the way."""
