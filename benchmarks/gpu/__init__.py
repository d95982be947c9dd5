"""One GPU: its ceilings, and how near to them the op, the training step and the scorer come."""
