"""Measurements that people repeat by name: `make bench`. Nothing here is part of the platform."""
