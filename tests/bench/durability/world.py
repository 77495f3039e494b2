"""What hosts do: sessions, lives, outages of whole networks, wiped disks and rot. Nothing of ours is in here.

Times in seconds. Session lengths are Weibull: Stutzbach and Rejaie (IMC 2006, shapes 0.34 to 0.59) and Steiner et al.
(KAD, IEEE/ACM ToN 2009). The means are ours: those studies watched downloaders, who leave when they have what they
came for; here are people who have promised a disk.
"""

import math
import random
from dataclasses import dataclass

HOUR = 3600.0
DAY = 24 * HOUR
YEAR = 365.25 * DAY


@dataclass(frozen=True, slots=True)
class Kind:
    """One sort of host: how long it is on and off, and how long until it leaves for good."""

    name: str
    on_seconds: float
    off_seconds: float
    life_seconds: float
    shape: float

    @property
    def availability(self) -> float:
        """The share of its life in which it can be reached."""
        return 1.0 if math.isinf(self.on_seconds) else self.on_seconds / (self.on_seconds + self.off_seconds)

    def session(self, dice: random.Random, *, on: bool) -> float:
        """How long it stays as it is now."""
        mean = self.on_seconds if on else self.off_seconds
        if math.isinf(mean):
            return math.inf
        return dice.weibullvariate(mean / math.gamma(1 + 1 / self.shape), self.shape)

    def life(self, dice: random.Random) -> float:
        """Exponential: what is left of it does not depend on its age."""
        return dice.expovariate(1 / self.life_seconds)


HOME = Kind("home", on_seconds=12 * HOUR, off_seconds=8 * HOUR, life_seconds=0.75 * YEAR, shape=0.6)
SERVER = Kind("server", on_seconds=30 * DAY, off_seconds=2 * HOUR, life_seconds=0.75 * YEAR, shape=0.6)
IMMORTAL_SESSION = Kind("always on", on_seconds=math.inf, off_seconds=HOUR, life_seconds=30 * DAY, shape=1.0)
"""For the check against the formula: on until it dies."""

FICKLE = Kind("fickle", on_seconds=30 * DAY, off_seconds=2 * HOUR, life_seconds=30 * DAY, shape=0.6)
"""So short a life that also good redundancies lose something while somebody watches."""

POPULATIONS = {"home": (HOME,), "servers": (SERVER,), "mixed": (HOME, SERVER), "fickle servers": (FICKLE,)}


@dataclass(frozen=True, slots=True)
class World:
    """A network of hosts that keeps its size: who leaves is replaced by a new, empty host."""

    hosts: int
    kinds: tuple[Kind, ...]
    hosts_per_subnet: int = 8
    outages_per_subnet_year: float = 1.0
    outage_seconds: float = 8 * HOUR
    final_outages: float = 0.02
    """The share of outages (a fire, a provider that gives up) that no host of the subnet survives."""

    wiped: float = 0.1
    """The share of deaths after which the host goes on, without its disk."""

    rot_per_piece_year: float = 1e-3
    killed_every_seconds: float = math.inf
    """At this even pace one host at random, new ones too, is replaced by an empty one."""

    public: bool = True
    """Whether addresses show which hosts share a subnet; placement goes by that."""

    @property
    def subnets(self) -> int:
        """How many networks the hosts are in."""
        return -(-self.hosts // self.hosts_per_subnet)


@dataclass(frozen=True, slots=True)
class Line:
    """What the owner, or its delegate, has for patching. With `exponential_seconds` each patch takes that, on average,
    and none waits for another: the case for which there is a formula."""

    up_bytes_per_second: float = 0.5 * 10e6 / 8
    down_bytes_per_second: float = 0.5 * 50e6 / 8
    exponential_seconds: float | None = None

    def seconds(self, dice: random.Random, read_bytes: float, written_bytes: float) -> float:
        """How long one patch takes."""
        if self.exponential_seconds is not None:
            return dice.expovariate(1 / self.exponential_seconds)
        return read_bytes / self.down_bytes_per_second + written_bytes / self.up_bytes_per_second
