"""Seeds: every random number of training follows from a seed and a step, so nothing has to be remembered to go on."""

import numpy as np


def seed_of(*numbers: int) -> int:
    """Give one 64-bit seed for whole numbers of at least 0, such as a user's seed, what it is for, and the step.

    Neighbouring numbers give unrelated seeds. Zeros at the end do not count: (3, 1) and (3, 1, 0) are the same.

    Source: NumPy's SeedSequence (O'Neill, 2015), made for this.
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
