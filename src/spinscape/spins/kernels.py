"""Heat-bath updates on the CPU: random numbers, thresholds and fields in one pass.

A spin in a field h takes σ = sign(2βh + ξ) with ξ from the logistic distribution, which is +1 with
probability 1/(1 + e^(−2βh)). ξ is made from 32 random bits: one gives its sign, the others, in
floating point, a uniform v in (0, 1] with |ξ| = ln(2/v − 1), so that both tails reach e^(−22). The
bits come from xoshiro128++ (Blackman and Vigna 2021, ACM Trans. Math. Softw. 47, 36): sixteen
streams a chain, side by side, each from its own seed.
"""

import numpy as np

from spinscape.compiling import compiled

__all__ = ["LANES", "logistic", "settle_block", "settle_one_by_one", "streams"]

LANES = 16


def streams(seed: np.random.SeedSequence, chains: int) -> np.ndarray:
    """State of the generators [chain, 4, LANES], uint32, of which none is all zeros."""
    words = seed.generate_state(chains * 4 * LANES, np.uint32).reshape(chains, 4, LANES)
    words[:, 0] |= np.uint32(1)
    return words


@compiled
def _bits(state: np.ndarray, out: np.ndarray) -> None:
    """Sixteen random words, one of each stream."""
    for lane in range(LANES):
        s0 = state[0, lane]
        s1 = state[1, lane]
        s2 = state[2, lane]
        s3 = state[3, lane]
        x = np.uint32(s0 + s3)
        rotated = np.uint32((x << np.uint32(7)) | (x >> np.uint32(25)))
        out[lane] = np.uint32(rotated + s0)
        shifted = np.uint32(s1 << np.uint32(9))
        s2 ^= s0
        s3 ^= s1
        s1 ^= s2
        s0 ^= s3
        s2 ^= shifted
        s3 = np.uint32((s3 << np.uint32(11)) | (s3 >> np.uint32(21)))
        state[0, lane] = s0
        state[1, lane] = s1
        state[2, lane] = s2
        state[3, lane] = s3


@compiled
def _logistic(words: np.ndarray, out: np.ndarray) -> None:
    """Logistic numbers from sixteen words; ln from the exponent and an odd series, to 3e−7."""
    for lane in range(LANES):
        word = words[lane]
        v = (np.float32(word >> np.uint32(1)) + np.float32(0.5)) * np.float32(4.6566129e-10)
        ratio = np.float32((np.float32(2.0) - v) / v)
        bits = ratio.view(np.uint32)
        # m in [1/sqrt 2, sqrt 2): the exponent is that of ratio * sqrt 2, rounded down
        exponent = np.int32(np.uint32(bits + np.uint32(0x004AFB0D)) >> np.uint32(23)) - np.int32(
            127
        )
        m = np.uint32(bits - np.uint32(np.uint32(exponent) << np.uint32(23))).view(np.float32)
        t = (m - np.float32(1.0)) / (m + np.float32(1.0))
        tt = t * t
        series = np.float32(2.0) + tt * (
            np.float32(0.66666667) + tt * (np.float32(0.4) + tt * np.float32(0.28783133))
        )
        value = np.float32(exponent) * np.float32(0.69314718) + t * series
        out[lane] = -value if word & np.uint32(1) else value


@compiled
def logistic(state: np.ndarray, out: np.ndarray) -> None:
    """Fill ``out [chain, n]`` with logistic numbers, and advance the streams of each chain."""
    words = np.empty(LANES, np.uint32)
    noise = np.empty(LANES, np.float32)
    for chain in range(out.shape[0]):
        for first in range(0, out.shape[1], LANES):
            _bits(state[chain], words)
            _logistic(words, noise)
            for lane in range(min(LANES, out.shape[1] - first)):
                out[chain, first + lane] = noise[lane]


@compiled
def settle_block(
    fields: np.ndarray, doubled_beta: np.ndarray, spins: np.ndarray, state: np.ndarray
) -> None:
    """Draw spins that do not see one another, ``spins [chain, n]``, given their fields.

    Parameters
    ----------
    fields : float array [chain, n]
    doubled_beta : float array [chain]
        2β of each chain.
    spins : float array [chain, n]
        Filled with ±1.
    state : uint32 array [chain, 4, LANES]
    """
    words = np.empty(LANES, np.uint32)
    noise = np.empty(LANES, np.float32)
    one = spins.dtype.type(1.0)
    for chain in range(fields.shape[0]):
        beta = doubled_beta[chain]
        for first in range(0, fields.shape[1], LANES):
            _bits(state[chain], words)
            _logistic(words, noise)
            for lane in range(min(LANES, fields.shape[1] - first)):
                pull = beta * fields[chain, first + lane] + noise[lane]
                spins[chain, first + lane] = one if pull > 0 else -one


@compiled
def settle_one_by_one(
    couplings: np.ndarray,
    fields: np.ndarray,
    doubled_beta: np.ndarray,
    spins: np.ndarray,
    state: np.ndarray,
) -> int:
    """One sweep of single flips in the order of the spins, the fields of all kept up to date.

    Parameters
    ----------
    couplings : float array [n, n]
        Symmetric, zero on the diagonal.
    fields : float array [chain, n]
        Local fields, external ones included; updated.
    doubled_beta, spins, state
        As in `settle_block`.

    Returns
    -------
    int
        Number of flips.
    """
    words = np.empty(LANES, np.uint32)
    noise = np.empty(LANES, np.float32)
    flips = 0
    n = spins.shape[1]
    for chain in range(spins.shape[0]):
        beta = doubled_beta[chain]
        own_fields = fields[chain]
        own_spins = spins[chain]
        for first in range(0, n, LANES):
            _bits(state[chain], words)
            _logistic(words, noise)
            for lane in range(min(LANES, n - first)):
                i = first + lane
                up = beta * own_fields[i] + noise[lane] > 0
                if up != (own_spins[i] > 0):
                    change = -2 * own_spins[i]
                    own_spins[i] = -own_spins[i]
                    row = couplings[i]
                    for j in range(n):
                        own_fields[j] += change * row[j]
                    flips += 1
    return flips
