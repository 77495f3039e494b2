"""Our own address as others see it: what a node behind a wildcard bind or a translating router puts into its record.

Plain values. Invariant: one voter, one vote, at most ``MOST_VOTERS`` of them: a single peer cannot talk a node into a
wrong address once others have spoken.
"""

from __future__ import annotations

from collections import Counter, OrderedDict

from layrfs.errors import BadMessage
from layrfs.network.addresses import Address, scope
from layrfs.network.strangers import source_of
from layrfs.wire.datagrams import unpack_ip_untrusted

MOST_VOTERS = 32


class ObservedAddress:
    """Votes on the address we are seen under."""

    def __init__(self) -> None:
        self._votes: OrderedDict[str, str] = OrderedDict()

    def vote_untrusted(self, voter: Address, seen_ip: bytes) -> None:
        """This peer, which answered us, sees us there. Nonsense is no vote."""
        try:
            seen = unpack_ip_untrusted(seen_ip)
        except BadMessage:
            return
        source = source_of(voter.host)
        self._votes[source] = seen
        self._votes.move_to_end(source)
        if len(self._votes) > MOST_VOTERS:
            self._votes.popitem(last=False)

    def best(self) -> str | None:
        """What most say, among those who see us from farthest away."""
        if not self._votes:
            return None
        farthest = max(scope(seen) for seen in self._votes.values())
        counts = Counter(seen for seen in self._votes.values() if scope(seen) == farthest)
        return counts.most_common(1)[0][0]
