"""What a paper claims, and which findings bear on it: one record a claim."""

from __future__ import annotations

from spinscape.report.claiming import Claim
from spinscape.report.valley_claims import ASYMMETRY_CLAIMS, MINING_CLAIMS

__all__ = ["RULE", "Claim", "claims_of"]

RULE = (
    "Of the paper the claims of the abstract are known to us, and neither its methods in detail "
    "nor its numbers. Each claim is tested here by findings whose rules were fixed beforehand: it "
    "is supported if every deciding finding is, not supported if one of them is not, and else "
    "undecided. The methods are ours; what they show of these networks and these data need not "
    "hold for those of the paper."
)


def claims_of(study: str) -> tuple[Claim, ...]:
    """Return the claims that a study tests; none if it reproduces no paper."""
    return _CLAIMS.get(study, ())


_TOGETHER = "At equal training loss, do {} and test error go together?"

_LIAO = (
    Claim(
        key="walks",
        text="Random walks in weight space unravel structure of the landscape.",
        known=(
            "random walks in parameter space are one of its protocols; step sizes, acceptance "
            "rule and observables are not known."
        ),
        ours=(
            "walkers take filter-normalised steps from balanced solutions; structure is what "
            "departs from the exact law of a quadratic bowl with the curvature at the start, which "
            "is measured independently."
        ),
        deciding=("Is the ground around a solution more than a bowl of its curvature?",),
        beside=(
            "Does the loss along a free walk forget itself sooner than over a bowl?",
            "Does the landscape hold back a walker at temperature T?",
            "Do thermal walkers slow down as they grow older, as a glass does?",
            "Is the ground around a solution curved in fewer directions than there are?",
            "Does gradient descent come back to a solution from nearby, and not from afar? "
            "(free walks)",
            "Does it fall back into a solution's basin from nearby, and not from afar? "
            "(free walks)",
        ),
        stems=(
            "Does gradient descent come back to a solution from nearby, and not from afar? "
            "(walks at T",
            "Does it fall back into a solution's basin from nearby, and not from afar? (walks at T",
        ),
    ),
    Claim(
        key="permutation",
        text=(
            "Paths between permuted copies of one region show how the regions of the landscape "
            "that the symmetry of hidden units makes identical are connected."
        ),
        known=(
            "permutation-interpolation is one of its protocols; which permutations, which "
            "barrier and which widths are not known."
        ),
        ours=(
            "barriers to own copies are compared with those between independent solutions, raw "
            "and matched, on the same pairs; curved paths and paths through permutation points "
            "are set against the straight one."
        ),
        deciding=("Does matching hidden units remove the barrier between two solutions?",),
        beside=(
            "Is the barrier to the own permuted copy like that to another solution?",
            "Does matching hidden units by what they do on data remove the barrier between "
            "two solutions?",
            "Does the barrier to the own copy grow faster than the number of units moved?",
            "Does the barrier between two solutions, as trained, fall as networks grow wider?",
            "Does the barrier between two solutions, after alignment, fall as networks grow wider?",
            "Is there a lower path than the straight one between a solution and its own copy, all "
            "hidden units renumbered?",
            "Is there a lower path than the straight one between two independent solutions?",
            "Is there a lower path than the straight one between two independent solutions whose "
            "hidden units are matched?",
            "Does the path through a permutation point beat the line?",
            "Does restoring the units' statistics remove the loss halfway between aligned "
            "solutions?",
        ),
    ),
    Claim(
        key="hierarchy",
        text=(
            "Hierarchical clustering of solutions is reminiscent of replica symmetry breaking: "
            "solutions form a hierarchy."
        ),
        known=(
            "solutions are clustered hierarchically; distance, linkage and null are not known, "
            "and whether the permutation symmetry is removed."
        ),
        ours=(
            "distances are those of orbits under permutation and rescaling; the verdict rests on "
            "K against two nulls, at two levels, because a dendrogram, the cophenetic correlation "
            "and the index of Rammal, Toulouse and Virasoro look alike for structureless points."
        ),
        deciding=(
            "Do the solutions form families?",
            "Do the solutions form families within families?",
            "Do families come back in independent sets of solutions?",
            "Do families within families come back in independent sets?",
        ),
        beside=(
            "Are solutions more alike than chance?",
            "Are solutions more tree-like than their starts?",
            "Is P(q) broader than chance?",
            "Does P(q) differ from set to set?",
            "Do the solutions form families by what they predict?",
            "Do the solutions form families within families by what they predict?",
            "Do the solutions form families by what their hidden units do?",
            "Do the solutions form families within families by what their hidden units do?",
            "Does the clustering of networks find the planted family tree?",
            "Does K see families where they were planted?",
            "Does K see families within families where they were planted?",
        ),
    ),
    Claim(
        key="ruggedness",
        text="Ruggedness of the landscape is related to generalisation.",
        known="a relation is reported; its measure of ruggedness and its population are not known.",
        ours=(
            "networks are trained with different settings to equal training loss, measures "
            "that symmetry cannot change are taken, and Kendall's τ is averaged over one setting "
            "at a time."
        ),
        deciding=(_TOGETHER.format("local energy"),),
        beside=tuple(
            _TOGETHER.format(measure)
            for measure in (
                "roughness index",
                "inverse correlation length of walks",
                "adaptive sharpness",
                "relative flatness (large: sharp)",
                "local entropy",
                "local learning coefficient",
            )
        ),
    ),
    Claim(
        key="flattening",
        text="Flattened minima generalise better.",
        known="an improvement by flattened minima is reported; how they were flattened is not.",
        ours=(
            "weight averaging, SAM and the mean of a thermal walk are each set against the plain "
            "minimum of the same seeds, paired, at equal cost."
        ),
        deciding=(
            "Do minima of weight averaging generalise better than plain ones of the same cost?",
            "Do minima of SAM generalise better than plain ones of the same cost?",
            "Do minima of walk averaging generalise better than plain ones of the same cost?",
        ),
        beside=(
            "Are minima of weight averaging flatter than plain ones of the same cost?",
            "Are minima of SAM flatter than plain ones of the same cost?",
            "Are minima of walk averaging flatter than plain ones of the same cost?",
        ),
    ),
)

_BARNEY = (
    Claim(
        key="untrained",
        text=(
            "Untrained networks correspond to a layered Sherrington-Kirkpatrick spin glass with a "
            "transition to the paramagnet at a T_c that theory gives."
        ),
        known="T_c = [2C cos(π/(L+2))]^½ for equal layers; widths and gains are not known.",
        ours=(
            "T_c of untrained networks by the stability of the TAP free energy, against replica "
            "theory for their widths, at the accuracy of their size."
        ),
        deciding=("Is an untrained network a layered Sherrington-Kirkpatrick glass?",),
        beside=("Do sampled energies and overlaps agree, as Gaussian couplings demand?",),
    ),
    Claim(
        key="destroyed",
        text="Training quickly destroys the glass and replaces it by a phase with hidden order.",
        known="the glass goes soon after training begins; learning rates and steps are not known.",
        ours=(
            "the first steps are resolved one by one; order is said only against permuted weights."
        ),
        deciding=tuple(
            question.format(net)
            for net in ("ReLU", "binarized")
            for question in (
                "Does training quickly destroy the glass? ({})",
                "Is there an order that the norms of the weights do not explain? ({})",
            )
        ),
        beside=tuple(
            f"Do replicas of the spins agree more than permuted weights let them? ({net})"
            for net in ("ReLU", "binarized")
        ),
    ),
    Claim(
        key="growth",
        text="The melting temperature T_c of the hidden order grows as a power of training time.",
        known="a power law is stated; the exponent and the form of the fit are not known.",
        ours=(
            "power laws are compared with a logarithm and a saturating exponential, seed by seed, "
            "over the ordered checkpoints only."
        ),
        deciding=(
            "Does T_c grow as a power of the training time? (ReLU)",
            "Does T_c grow as a power of the training time? (binarized)",
        ),
    ),
    Claim(
        key="single",
        text="The number of TAP solutions falls to a single pair.",
        known="solvers, temperatures and numbers of starts are not known.",
        ours=(
            "three solvers, three tests of every solution, failures counted; only the trained end "
            "is judged, because in the glass no solver finds the solutions that theory expects."
        ),
        deciding=(
            "Do the TAP equations end with a single ± pair of solutions? (ReLU)",
            "Do the TAP equations end with a single ± pair of solutions? (binarized)",
        ),
    ),
    Claim(
        key="alike",
        text="Networks with continuous and with binarized activations behave alike.",
        known="two such networks are compared; how alike they are is not known in numbers.",
        ours="both kinds must end in order, with equal exponents of growth.",
        deciding=("Do networks with continuous and with binarized activations behave alike?",),
    ),
    Claim(
        key="tails",
        text="The spectrum of the bond matrix develops tails, discussed as rich or lazy learning.",
        known="tails are reported; exponents and tests are not known.",
        ours=(
            "outliers beyond the spectra of permuted weights, tails tested against other laws, and "
            "networks from lazy to rich by their output scale."
        ),
        deciding=(
            "Does training grow outliers in the spectrum of the bond matrix? (ReLU)",
            "Does training grow outliers in the spectrum of the bond matrix? (binarized)",
            "Do networks that learn lazily stay nearer to the glass?",
        ),
    ),
)

_CLAIMS = {
    "liao2024": _LIAO,
    "barney2024": _BARNEY,
    "li2024-mining": MINING_CLAIMS,
    "li2024-asymmetry": ASYMMETRY_CLAIMS,
}
