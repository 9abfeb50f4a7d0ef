"""Configuration: YAML with file:line, registries, signatures as schema. Imports no torch."""

from frcnn.config.registry import Factory, Registry

__all__ = ["Factory", "Registry"]
