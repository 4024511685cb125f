"""What was handed over and is not settled yet: bounded, and something to wait for."""

import threading


class Backlog:
    """So many things of so many bytes, at most `limit_bytes` unless one alone is larger. Thread safe.

    It has a lock of its own, held for moments only: whoever settles must never wait for one who sends.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._changed = threading.Condition()
        self._count = 0
        self._bytes = 0

    def take(self, size: int, timeout_s: float) -> bool:
        """One more, of `size` bytes, once there is room; False when there was none in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._has_room(size), timeout_s):
                return False
            self._count += 1
            self._bytes += size
            return True

    def give_back(self, count: int, size: int) -> None:
        """So many, of `size` bytes together, are settled."""
        with self._changed:
            self._count -= count
            self._bytes -= size
            self._changed.notify_all()

    def wait(self, timeout_s: float) -> int:
        """How many are left when all are settled, or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: not self._count, timeout_s)
            return self._count

    def _has_room(self, size: int) -> bool:
        return not self._count or self._bytes + size <= self._limit_bytes
