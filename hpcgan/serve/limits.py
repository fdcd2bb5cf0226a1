"""What a service allows: sizes, waiting, time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of a service.

    Attributes
    ----------
    request_events : int
        Events of one request.
    held_events : int
        Events of all requests that wait, are being made or are being sent; a request beyond is refused at once.
    body_bytes : int
        Of a request.
    timeout_s : float
        From the first byte of a request to the last one of its response.
    latency_s : float
        How long a request waits for others to fill its batch with, at most.
    """

    request_events: int = 4096
    held_events: int = 16384
    body_bytes: int = 8 << 20
    timeout_s: float = 60.0
    latency_s: float = 0.005
