"""Broken input for the readers: files cut anywhere, or with bytes changed."""

from __future__ import annotations

from hypothesis import strategies as st


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Up to four bytes changed, and the end cut off or not."""
    broken = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        broken[draw(st.integers(0, len(broken) - 1))] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        broken = broken[: draw(st.integers(0, len(broken)))]
    return bytes(broken)
