"""The energy of points: the loss of a network on data, at any batch of weights."""

from collections.abc import Callable
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor, nn

from spinscape.landscape.checks import (
    check_data,
    check_device,
    check_finite,
    check_labels,
    check_mean,
    few_samples,
)
from spinscape.landscape.derivatives import (
    differentiable_losses,
    gauss_newton_products,
    hessian_products,
    linearised_gradients,
    losses_and_gradients,
)
from spinscape.landscape.fine_lines import fits, scan_fine_line
from spinscape.landscape.scans import coordinates, scan_dataset
from spinscape.landscape.subspaces import scan_lines, scan_subspace
from spinscape.nets.chunks import pieces
from spinscape.nets.dense import DenseStack
from spinscape.nets.engine import DenseEngine, PointEvaluator
from spinscape.nets.losses import Loss, LossFunction, are_labels, loss_of
from spinscape.nets.weightspace import WeightSpace
from spinscape.nets.weightspace import points as points_of

__all__ = ["Landscape"]

Points = Tensor | xr.DataArray | xr.Dataset


class Landscape:
    """The loss of a network on given samples, as a function of its weights.

    Every method takes points ``[..., n]`` with any leading axes (or a DataArray with a dimension
    ``n``) and works in their dtype, on their device, in chunks of points and samples that fit
    into memory and, on a CPU, into its cache. The numbers do not depend on the chunks beyond
    floating-point reordering.

    Parameters
    ----------
    module : nn.Module
        The architecture, evaluated as in ``module.eval()``. It is only read: weights, buffers,
        mode and the global random state stay as they are.
    x, y : Tensor [S, ...]
        Inputs and targets; they stay where they are, and are cast chunk by chunk.
    loss : str or callable
        ``"cross_entropy"``, ``"mse"``, or the mean over samples ``f(outputs, y)`` of one model.
    engine : "auto", "dense", "vmap" or "loop"
        How points are run; "auto" chooses.
    statistics : "reestimate" or "frozen"
        Whether the running statistics of normalisation layers are re-estimated at every point, or
        those of the module are used for all. Stale statistics look like a barrier.
    statistics_samples : int or Tensor, optional
        How many of `x`, or which inputs instead (training data, when `x` is test data), the
        statistics are estimated on; all of `x` if not given.
    statistics_batch : int
        Samples a batch of that estimate; batches are consecutive and averaged with equal weights.
    memory : int, optional
        Bytes that intermediate results may take; 1 GiB if not given.

    Raises
    ------
    ValueError
        If `x` and `y` do not fit each other or the module, hold values that are not finite or
        labels out of range; if the loss is not a mean over samples; or if an option is unknown.

    Examples
    --------
    >>> module = torch.nn.Linear(2, 3)
    >>> landscape = Landscape(module, torch.randn(5, 2), torch.tensor([0, 1, 2, 0, 1]))
    >>> landscape.loss(torch.zeros(4, landscape.n)).shape
    torch.Size([4])
    """

    def __init__(
        self,
        module: nn.Module,
        x: Tensor,
        y: Tensor,
        loss: str | LossFunction | Loss = "cross_entropy",
        *,
        engine: str = "auto",
        statistics: str = "reestimate",
        statistics_samples: int | Tensor | None = None,
        statistics_batch: int = 256,
        memory: int | None = None,
    ) -> None:
        self.x, self.y = check_data(x, y)
        self.module = module
        self.statistics = statistics
        self._evaluator = PointEvaluator(
            module,
            loss_of(loss),
            engine=engine,
            statistics=_statistics_inputs(statistics, statistics_samples, self.x),
            statistics_batch=statistics_batch,
            memory=memory,
        )
        self.space: WeightSpace = self._evaluator.engine.space
        self._try_on_a_few_samples()

    def __repr__(self) -> str:
        return (
            f"Landscape({self.space.kind}, n={self.n:,}, samples={len(self.x):,}, "
            f"loss={self._evaluator.loss.name!r}, engine={self.engine!r})"
        )

    @property
    def n(self) -> int:
        """Length of a point."""
        return self.space.n

    @property
    def engine(self) -> str:
        """The engine in use: "dense", "vmap" or "loop"."""
        return self._evaluator.engine.name

    @property
    def reestimates(self) -> bool:
        """Whether statistics of normalisation layers are estimated anew at every point."""
        return self._evaluator.statistics is not None

    @property
    def criterion(self) -> Loss:
        """The loss as a function of outputs and targets."""
        return self._evaluator.loss

    def loss(self, points: Points) -> Float[Tensor, "*batch"]:
        """Mean loss per sample of every point ``[..., n]``.

        Autograd follows it back to points that require a gradient, the statistics of
        normalisation layers held fixed.
        """
        points, batch = self._rows(points)
        if torch.is_grad_enabled() and points.requires_grad:
            values = differentiable_losses(self._evaluator, points, self.x, self.y)
        else:
            values, _ = self._evaluator(points, self.x, self.y, with_error=False)
        return values.view(batch)

    def energy(self, points: Points) -> Float[Tensor, "*batch"]:
        """Return :meth:`loss`, under the name that walks ask for."""
        return self.loss(points)

    def error(self, points: Points) -> Float[Tensor, "*batch"]:
        """Fraction of samples whose largest output is not at the label, of every point.

        Raises
        ------
        ValueError
            If the targets are no class labels of the module's outputs.
        """
        if not self._labelled:
            raise ValueError(
                f"y of dtype {self.y.dtype} holds no class labels of the module's outputs: "
                "an error rate needs one integer label a sample; use loss(points)"
            )
        return self.evaluate(points)[1]

    def evaluate(self, points: Points) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Loss and error of every point in one pass (the error is NaN without class labels)."""
        points, batch = self._rows(points)
        loss, error = self._evaluator(points.detach(), self.x, self.y)
        return loss.view(batch), error.view(batch)

    def outputs(self, points: Points) -> Float[Tensor, "*batch S C"]:
        """Run every point on all samples (the outputs are kept in memory all at once)."""
        points, batch = self._rows(points)
        cuts = self._evaluator.cuts(points, self.x)
        rows = []
        with torch.no_grad():
            for some in pieces(len(points), cuts.points):
                buffers = self._evaluator.buffers(points[some])
                parts = [
                    self._evaluator.engine.outputs(points[some], self.x[samples], buffers=buffers)
                    for samples in pieces(len(self.x), cuts.samples)
                ]
                rows.append(torch.cat(parts, 1))
        found = torch.cat(rows) if rows else points.new_empty(0, *self._output_shape)
        return found.view(*batch, *found.shape[1:])

    def gradient(self, points: Points) -> Float[Tensor, "*batch n"]:
        """Gradient of the loss at every point.

        In closed form for the dense engine, by back-propagation otherwise. Re-estimated
        statistics of normalisation layers are held fixed: it is the gradient of the loss that an
        optimiser sees in evaluation mode, not of the map from points to re-estimated losses.
        """
        return self.loss_and_gradient(points)[1]

    def loss_and_gradient(
        self, points: Points
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch n"]]:
        """Loss and :meth:`gradient` of every point in one pass."""
        points, batch = self._rows(points)
        loss, slope = losses_and_gradients(self._evaluator, points.detach(), self.x, self.y)
        return loss.view(batch), slope.view(*batch, self.n)

    def hvp(
        self, points: Points, vectors: Points, matrix: str = "hessian"
    ) -> Float[Tensor, "*batch n"]:
        """Hessian of the loss at every point times a vector, exactly (no finite differences).

        Parameters
        ----------
        points : [..., n]
        vectors : [..., n]
            Broadcast against the points: one point and many vectors will do.
        matrix : "hessian" or "gauss_newton"
            Or the part of it that the curvature of the loss in the outputs makes, Jᵀ (∂²L/∂z²) J,
            which is never negative for a convex loss.

        Notes
        -----
        Re-estimated statistics of normalisation layers are held fixed, as in :meth:`gradient`.
        """
        products = _matrix(matrix)
        vectors = points_of(vectors)
        self.space.check(vectors, "vectors")
        points = points_of(points)
        self.space.check(points, "points")
        points, vectors = torch.broadcast_tensors(points, vectors.to(points.dtype))
        rows, batch = self._rows(points)
        vectors = vectors.detach().reshape(-1, self.n)
        found = products(self._evaluator, rows.detach(), vectors, self.x, self.y)
        return found.view(*batch, self.n)

    def hessians(self, points: Points) -> Callable[[Tensor], Tensor] | None:
        """Return a function of vectors ``[P, n]``, the Hessian of each point times its own.

        What all products share is computed once and kept; None where it does not fit in memory,
        and :meth:`hvp` has to do.
        """
        rows, _ = self._rows(points)
        return linearised_gradients(self._evaluator, rows.detach(), self.x, self.y)

    def subspace(
        self, origin: Points, directions: Points, coefficients: Tensor
    ) -> tuple[Float[Tensor, "*grid"], Float[Tensor, "*grid"]]:
        """Loss and error on an affine subspace, at ``origin + coefficients @ directions``.

        With the dense engine the first layer is computed once for the origin and each direction.

        Parameters
        ----------
        origin : [n]
        directions : [k, n]
        coefficients : [..., k]
        """
        basis = self._basis(origin, directions)
        weights = torch.as_tensor(coefficients).to(basis)
        if weights.ndim == 0 or weights.shape[-1] != len(basis) - 1:
            raise ValueError(
                f"coefficients have shape {tuple(weights.shape)}: expected a last axis of "
                f"{len(basis) - 1}, one number for each direction"
            )
        grid = weights.shape[:-1]
        weights = weights.reshape(-1, len(basis) - 1)
        weights = torch.cat([torch.ones_like(weights[:, :1]), weights], 1)
        stack = self._stack
        if stack is not None and len(weights) > len(basis):
            with torch.no_grad():
                found = scan_subspace(self._evaluator, stack, basis, weights, self.x, self.y)
        else:
            found = self._in_parts(len(weights), lambda rows: weights[rows] @ basis)
        return found[0].view(grid), found[1].view(grid)

    def lines(
        self, origins: Points, directions: Points, lam: Tensor
    ) -> tuple[Float[Tensor, "L k"], Float[Tensor, "L k"]]:
        """Loss and error along many lines at once, at ``origins + lam · directions``.

        Parameters
        ----------
        origins, directions : [L, n]
        lam : [k]
            Positions, the same on every line.
        """
        origins, batch = self._rows(origins, "origins")
        directions, other = self._rows(directions, "directions")
        if len(batch) != 1 or batch != other:
            raise ValueError(
                f"origins {(*batch, self.n)} and directions {(*other, self.n)}: expected two equal "
                "shapes [lines, n]"
            )
        origins, directions = origins.detach(), directions.detach().to(origins.dtype)
        lam = coordinates(lam, "lam", origins.device).to(origins.dtype)
        if self._stack is not None and len(lam) > 2:
            with torch.no_grad():
                return scan_lines(
                    self._evaluator, self._stack, origins, directions, lam, self.x, self.y
                )
        count = len(origins) * len(lam)

        def points_at(rows: slice) -> Tensor:
            index = torch.arange(rows.start, rows.stop, device=origins.device)
            line, step = index // len(lam), index % len(lam)
            return torch.addcmul(origins[line], lam[step, None], directions[line])

        loss, error = self._in_parts(count, points_at)
        return loss.view(-1, len(lam)), error.view(-1, len(lam))

    def line(self, origin: Points, direction: Points, lam: Any = None) -> xr.Dataset:
        """Loss and error along one line, at ``origin + lam · direction``.

        Parameters
        ----------
        origin, direction : [n]
        lam : [k], optional
            Positions in units of the direction; 51 from −1 to 1 if not given.

        Returns
        -------
        Dataset
            ``loss [lam]`` and ``error [lam]`` (the latter if the targets are class labels).
        """
        basis = self._basis(origin, points_of(direction)[None])
        lam = coordinates(lam, "lam", basis.device)
        stack = self._stack
        if stack is not None and fits(stack, self.criterion, self._labelled, basis, lam):
            loss, error = scan_fine_line(stack, basis[0], basis[1], lam, self.x, self.y)
            holes = ~torch.isfinite(loss)  # of the loss, or of the coefficients alone
            if bool(holes.any()):
                again = self.subspace(basis[0], basis[1:], lam[holes, None])
                loss[holes], error[holes] = again
        else:
            loss, error = self.subspace(basis[0], basis[1:], lam[:, None])
        return self._dataset("line", {"lam": lam}, basis, loss, error)

    def plane(
        self, origin: Points, d1: Points, d2: Points, a: Any = None, b: Any = None
    ) -> xr.Dataset:
        """Loss and error on a plane, at ``origin + a · d1 + b · d2``.

        Parameters
        ----------
        origin, d1, d2 : [n]
        a, b : [k], [m], optional
            Positions in units of the directions; 51 from −1 to 1 if not given.

        Returns
        -------
        Dataset
            ``loss [a, b]`` and ``error [a, b]`` (the latter if the targets are class labels).
        """
        d1, d2 = points_of(d1), points_of(d2)
        self.space.check(d1, "d1", ndim=1)
        self.space.check(d2, "d2", ndim=1)
        basis = self._basis(origin, torch.stack([d1, d2]))
        a, b = coordinates(a, "a", basis.device), coordinates(b, "b", basis.device)
        grid = torch.stack(torch.meshgrid(a, b, indexing="ij"), -1)
        loss, error = self.subspace(basis[0], basis[1:], grid)
        return self._dataset("plane", {"a": a, "b": b}, basis, loss, error)

    @property
    def _stack(self) -> DenseStack | None:
        engine = self._evaluator.engine
        return engine.stack if isinstance(engine, DenseEngine) else None

    def _rows(self, points: Any, name: str = "points") -> tuple[Tensor, torch.Size]:
        """Points as rows ``[P, n]``, and the shape of their leading axes."""
        points = points_of(points)
        self.space.check(points, name)
        check_device(points, self.x)
        return points.reshape(-1, self.n), points.shape[:-1]

    def _basis(self, origin: Any, directions: Any) -> Float[Tensor, "1+k n"]:
        """Stack the origin and, below it, the directions."""
        origin, directions = points_of(origin).detach(), points_of(directions).detach()
        self.space.check(origin, "origin", ndim=1)
        self.space.check(directions, "directions", ndim=2)
        check_device(origin, self.x)
        check_device(directions, self.x)
        return torch.cat([origin[None], directions.to(origin.dtype)])

    def _in_parts(self, count: int, points_at: Callable[[slice], Tensor]) -> tuple[Tensor, Tensor]:
        """Loss and error of points that are made a few at a time."""
        size = max(1, self._evaluator.memory // (8 * self.n))
        cuts = list(pieces(count, size)) or [slice(0, 0)]
        parts = [self.evaluate(points_at(rows)) for rows in cuts]
        loss, error = zip(*parts, strict=True)
        return torch.cat(loss), torch.cat(error)

    def _try_on_a_few_samples(self) -> None:
        """Run the module's own point once: whatever does not fit is refused at the door."""
        point = self.space.point(self.module).detach().to(self.x.device)
        few = few_samples(self.y)
        try:
            outputs = self._evaluator.engine.outputs(point[None], self.x[few])
        except (RuntimeError, IndexError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(
                f"x: module {self.space.kind!r} cannot take samples of shape "
                f"{tuple(self.x.shape[1:])} and dtype {self.x.dtype} ({reason})"
            ) from error
        check_labels(self.y, outputs[0], self._evaluator.loss)
        check_mean(self._evaluator.loss, outputs, self.y[few])
        self._output_shape = (len(self.x), *outputs.shape[2:])
        self._labelled = are_labels(self.y, outputs.shape[2:])

    def _dataset(
        self, protocol: str, axes: dict[str, Tensor], basis: Tensor, loss: Tensor, error: Tensor
    ) -> xr.Dataset:
        arguments = {
            "module": self.space.kind,
            "samples": len(self.x),
            "loss": self._evaluator.loss.name,
            "engine": self.engine,
            "dtype": str(basis.dtype).removeprefix("torch."),
            **self._describe_statistics(),
        }
        return scan_dataset(protocol, axes, basis[1:], loss, error, self.criterion, arguments)

    def _describe_statistics(self) -> dict[str, Any]:
        if not self._evaluator.normalises:
            return {}
        used = self._evaluator.statistics
        if used is None:
            return {"statistics": "frozen"}
        batch = min(self._evaluator.statistics_batch, len(used))
        return {
            "statistics": "reestimate",
            "statistics_samples": len(used),
            "statistics_batch": batch,
        }


def _matrix(name: str) -> Callable[..., Tensor]:
    known = {"hessian": hessian_products, "gauss_newton": gauss_newton_products}
    if name not in known:
        raise ValueError(f"matrix={name!r}: expected one of {', '.join(map(repr, known))}")
    return known[name]


def _statistics_inputs(statistics: str, samples: int | Tensor | None, x: Tensor) -> Tensor | None:
    if statistics not in ("reestimate", "frozen"):
        raise ValueError(f"statistics={statistics!r}: expected 'reestimate' or 'frozen'")
    if statistics == "frozen":
        return None
    if samples is None:
        return x
    if isinstance(samples, Tensor):
        check_finite(samples, "statistics_samples")
        return samples
    if isinstance(samples, bool) or not 0 < samples <= len(x):
        raise ValueError(
            f"statistics_samples={samples!r}: expected 1 to {len(x):,} (as many samples as x has), "
            "or a tensor of inputs"
        )
    return x[:samples]
