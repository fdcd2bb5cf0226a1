"""Why a request gets no events: a status of HTTP, and one line."""

from __future__ import annotations


class Refusal(Exception):
    """A request that is not answered with events.

    Parameters
    ----------
    status : int
        Of HTTP: 400, 401, 404, 413, 500, 503 or 504.
    reason : str
        One line.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason
