"""Numbers only: decay, interests, factors. Pure numpy and numba; time and randomness are arguments. Imports nothing of ours."""
