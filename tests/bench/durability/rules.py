"""Other numbers than ours in the rules, for as long as somebody wants to see what they would do."""

from collections.abc import Iterator
from contextlib import contextmanager

from layrfs.policy import patching, trust
from tests.bench.durability import simulation

MODULES = (trust, patching, simulation)


@contextmanager
def rules(**numbers: float) -> Iterator[None]:
    """Constants of `layrfs.policy` by name, wherever they were imported."""
    before = [(module, name, getattr(module, name)) for module in MODULES for name in numbers if hasattr(module, name)]
    if unknown := numbers.keys() - {name for _, name, _ in before}:
        raise NameError(f"no such numbers: {', '.join(sorted(unknown))}")
    try:
        for module, name, _ in before:
            setattr(module, name, numbers[name])
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
