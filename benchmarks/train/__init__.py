"""The trainer, rung by rung: normal images a second, from the loader to the update."""
