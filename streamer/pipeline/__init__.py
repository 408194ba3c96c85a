"""Pure functions over a batch: a batch and its state in, effects out. No Kafka, clock, environment or logging."""
