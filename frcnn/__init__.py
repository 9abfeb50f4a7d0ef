"""frcnn: Faster R-CNN that can be taken apart and put together differently."""

__version__ = "0.1.0"
