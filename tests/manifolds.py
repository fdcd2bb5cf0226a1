"""What a perfect generator comes to."""

from hpcgan.metrics.manifold import NEIGHBOURS


def expected_coverage(n: int, m: int, k: int = NEIGHBOURS) -> float:
    """Coverage of `n` real by `m` generated events to expect if both are samples of one continuous distribution.

    1 - (n - 1)! (n + m - k - 1)! / ((n - k - 1)! (n + m - 1)!), the chance that of the n - 1 + m other events the k
    nearest are not all real (Naeem et al. 2020). Close to 1 - 2^-k for n = m.
    """
    missed = 1.0
    for i in range(k):
        missed *= (n - 1 - i) / (n + m - 1 - i)
    return 1.0 - missed
