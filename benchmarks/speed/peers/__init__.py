"""The same work under other libraries: each reads activity.v1 its own way and calls `Partitions.apply`."""
