"""What holds for every test."""

from hypothesis import settings

# No property is timed: the first one that folds waits for the compiler, and a busy machine is no broken law.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
