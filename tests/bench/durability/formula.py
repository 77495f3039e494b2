"""The closed formula: hosts that die independently, patches that take exponential time, any number at once.

A shard with i pieces loses one at rate i/life and gets all of them back at rate 1/patch, if it is patched in that state
at all; that is asked of `policy.patching`. The expected time until fewer than `needed` are left, from a full shard:

    T = a(n) / c(n),   c(i) = c(i-1) · iλ / (iλ + μ(i)),   a(i) = (1 + iλ · a(i-1)) / (iλ + μ(i))

with a(k-1) = 0 and c(k-1) = 1.
"""

from collections.abc import Mapping

from layrfs.model.redundancy import Redundancy
from layrfs.policy.patching import Urgency, repair
from tests.bench.durability.world import YEAR


def losses_per_shard_year(redundancy: Redundancy, life_seconds: float, patch_seconds: Mapping[Urgency, float]) -> float:
    """1/T. ``patch_seconds``: until a shard of this urgency is whole again; not patched when it is not in there."""
    death = 1 / life_seconds
    all_lost, time = 1.0, 0.0
    for alive in range(redundancy.needed, redundancy.total + 1):
        urgency = repair(redundancy, dict.fromkeys(range(alive), "good")).urgency
        patch = 1 / patch_seconds[urgency] if urgency in patch_seconds else 0.0
        out = alive * death + patch
        all_lost, time = all_lost * alive * death / out, (1 + alive * death * time) / out
    return all_lost / time * YEAR
