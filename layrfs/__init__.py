"""LayrFS: a cloud drive with no cloud company.

The folders below are the architecture; ``docs/design.md`` explains them and
``setup.cfg`` holds the contract that imports only ever point down.
"""

__version__ = "0.1.0"
