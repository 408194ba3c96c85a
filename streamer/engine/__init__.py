"""The only place with Kafka, RocksDB and clocks: Faust app, agents, ingest, checkpoint, store, restore."""
