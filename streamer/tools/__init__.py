"""What people run beside the worker: embedded Kafka, simulator, replay, demo, benchmark."""
