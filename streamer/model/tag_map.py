"""Tag map: a plane on which tags that the same people have lie close together. Numbers only; nothing is random.

    s_ua     user u's share of tag a
    k_ab     cosine of the columns a and b of s: 1 where the same people have both alike, 0 where nobody has both
    δ_ab     sqrt(2 (1 - k_ab)), how far apart they should lie

Places begin with classical scaling (Torgerson 1952: the two strongest eigenvectors of the doubly centred k) and are
then settled by stress majorisation (SMACOF; de Leeuw 1977): each step x ← B(x) x / n, with b_ab = -δ_ab / |x_a - x_b|
off the diagonal, lowers Σ (|x_a - x_b| - δ_ab)². Classical scaling alone puts all that its two axes do not tell apart
on one heap. An example: three tags that nobody has together lie at the corners of a triangle with sides of sqrt(2),
scaled to fit in -1 … 1.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.float64]  # [n, 2]
STEPS: Final = 60  # on made-up shoppers the stress falls by under 1 % in the next 60; 120 tags take 15 ms


def cosines(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much the same people have two tags, [tags, tags], from shares [users, tags]; nobody's tag is like none."""
    norms = np.linalg.norm(shares, axis=0)
    unit = shares / np.where(norms > 0, norms, 1)
    alike = unit.T @ unit
    np.fill_diagonal(alike, 1)
    return np.asarray(np.clip(alike, 0, 1))


def lay_out(alike: NDArray[np.float64]) -> Places:
    """Places of tags, the farthest coordinate at ±1."""
    distances = np.sqrt(2 * (1 - alike))
    places = classical(distances)
    for _ in range(STEPS):
        places = settle(places, distances)
    return np.asarray(places / max(np.abs(places).max(initial=0), 1e-9))


def classical(distances: NDArray[np.float64]) -> Places:
    """Places whose distances are nearest to these in the sense of classical scaling; exact where a plane has them."""
    n = len(distances)
    if n < 2:
        return np.zeros((n, 2))
    centring = np.eye(n) - 1 / n
    values, vectors = np.linalg.eigh(-0.5 * centring @ distances**2 @ centring)
    best = vectors[:, ::-1][:, :2]
    signs = np.sign(best[np.abs(best).argmax(axis=0), range(2)])  # an eigenvector has none of its own
    return np.asarray(best * signs * np.sqrt(np.maximum(values[::-1][:2], 0)))


def settle(places: Places, distances: NDArray[np.float64]) -> Places:
    """One step of stress majorisation: the stress does not rise."""
    apart = _distances(places)
    ratio = np.divide(distances, apart, out=np.zeros_like(apart), where=apart > 0)
    return np.asarray((ratio.sum(axis=1)[:, None] * places - ratio @ places) / max(len(places), 1))


def stress(places: Places, distances: NDArray[np.float64]) -> float:
    """Sum of squared differences between distances on the plane and those wanted; each pair twice."""
    return float(((_distances(places) - distances) ** 2).sum())


def turn(places: Places, before: Places) -> NDArray[np.float64]:
    """The rotation or reflection [2, 2] after which places lie nearest to where they were (orthogonal Procrustes).

    A map that is drawn anew every half minute must not tumble.
    """
    u, _, v = np.linalg.svd(places.T @ before)
    return np.asarray(u @ v)


def means(shares: NDArray[np.float64], places: Places) -> Places:
    """Where users stand: the mean of their tags' places by share; [users, tags] → [users, 2]. Without a tag: (0, 0)."""
    totals = shares.sum(axis=1, keepdims=True)
    return np.asarray(shares @ places / np.where(totals > 0, totals, 1))


def _distances(places: Places) -> NDArray[np.float64]:
    between = places[:, None, :] - places[None, :, :]
    return np.asarray(np.sqrt((between**2).sum(axis=2)))
