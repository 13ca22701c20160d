"""The one pass over the logits that every loss of a sum shares.

Whatever a loss needs of a softmax over C classes and V voxels is, here, a function of the
log-probability of the true class (V numbers a sample) and of sums over voxels by class (C numbers
a sample). Only the pass that makes these touches C x V numbers; no one-hot tensor exists.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hnlib.losses.finite import refuse_nan
from hnlib.losses.partial import check_labelled, merge_unlabelled

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
#: Logits in a block: few enough for a cache, so many that calls cost nothing beside them.
BLOCK_NUMBERS = 2**20
#: A sum of exponentials above this holds all digits of any share that matters.
SMALLEST_SUM = 1e-30


class _WholeSums(torch.autograd.Function):
    """Log-probability of the true class, and sums of p and of p^2 by class, in a few operations: for accelerators.

    With g_v = dL/d(log p_true), a_k = dL/dP_k + 2 p_k dL/dQ_k and m_v = sum_c p_c a_c,
    the gradient is dL/dz_k = p_k (a_k - m_v - g_v) + [k is true] g_v.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, squares: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return log p_true (N, V), P (N, C) and, when `squares`, Q (N, C) of logits (N, C, V)."""
        ctx.set_materialize_grads(False)
        log_probs = torch.log_softmax(logits, dim=1)
        true_log_probs = log_probs.gather(1, target.unsqueeze(1)).squeeze(1)
        probs = log_probs.exp_()  # in place: the log-probabilities of the other classes are not needed again
        ctx.save_for_backward(probs, target)
        squared = torch.linalg.vector_norm(probs, dim=2).square() if squares else None
        return true_log_probs, probs.sum(dim=2), squared

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_true: Tensor | None, grad_sum: Tensor | None, grad_squared: Tensor | None
    ) -> tuple[Tensor, None, None]:
        """Return dL/dlogits (N, C, V)."""
        probs, target = ctx.saved_tensors
        grad: Tensor
        if grad_sum is None and grad_squared is None:
            grad = torch.zeros_like(probs) if grad_true is None else probs * -grad_true.unsqueeze(1)
        else:
            slope = probs.new_zeros(()) if grad_sum is None else grad_sum.unsqueeze(2)
            if grad_squared is None:
                grad = probs * slope
            else:  # in one buffer: a second one of this size costs more than the arithmetic
                grad = torch.addcmul(slope, probs, 2 * grad_squared.unsqueeze(2)).mul_(probs)
            shift = grad.sum(dim=1) if grad_true is None else grad.sum(dim=1).add_(grad_true)
            grad.addcmul_(probs, shift.unsqueeze(1), value=-1)
        if grad_true is not None:
            grad.scatter_add_(1, target.unsqueeze(1), grad_true.unsqueeze(1))
        return grad, None, None


class _BlockedSums(torch.autograd.Function):
    """The same and the sums of p g by class, with one tensor of the logits' size: for a CPU.

    Voxels pass in blocks that stay in cache with all that is made of them. The gradient, here with
    g_v = dL/d(log p_true) + p_true dL/dI_true, is written over the probabilities; a second backward makes those anew.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, squares: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return log p_true (N, V), and P, Q (zero unless `squares`) and I (N, C) of logits (N, C, V)."""
        ctx.set_materialize_grads(False)
        num_samples, num_classes, num_voxels = logits.shape
        probs, true_log_probs = torch.empty_like(logits), logits.new_empty((num_samples, num_voxels))
        masses, squared, inside = logits.new_zeros((3, num_samples, num_classes), dtype=torch.float64)
        for n, part in _blocks(logits):
            z, labels, own = logits[n, :, part], target[n, part], probs[n, :, part]
            log_total = _softmax(z, out=own)
            log_true = torch.sub(z.gather(0, labels.unsqueeze(0))[0], log_total, out=true_log_probs[n, part])
            masses[n] += own.sum(dim=1)
            if squares:
                squared[n] += torch.linalg.vector_norm(own, dim=1).square_()
            # float64, since scatter_add adds one by one: in float32 the background's sum would lose digits
            inside[n].scatter_add_(0, labels, log_true.exp().double())
        ctx.probs = probs
        ctx.save_for_backward(logits, target, true_log_probs)
        return true_log_probs, masses, squared, inside

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_true: Tensor | None, *grads: Tensor | None) -> tuple[Tensor, None, None]:
        """Return dL/dlogits (N, C, V)."""
        logits, target, true_log_probs = ctx.saved_tensors
        result, ctx.probs = ctx.probs, None
        if result is None:  # bit for bit as in the forward
            result = torch.empty_like(logits)
            for n, part in _blocks(logits):
                _softmax(logits[n, :, part], out=result[n, :, part])
        slopes, squared_slopes, inside_slopes = (None if g is None else g.to(logits.dtype) for g in grads)
        for n, part in _blocks(logits):
            probs, labels, shift = result[n, :, part], target[n, part], logits.new_zeros(())
            if grad_true is not None:
                shift = grad_true[n, part]
            if inside_slopes is not None:
                shift = torch.addcmul(shift, true_log_probs[n, part].exp(), inside_slopes[n].take(labels))
            source, slope = shift, logits.new_zeros(()) if slopes is None else slopes[n].unsqueeze(1)
            if squared_slopes is not None:
                slope = torch.addcmul(slope, probs, squared_slopes[n].unsqueeze(1), value=2)
                shift = (slope * probs).sum(dim=0).add_(shift)
            elif slopes is not None:
                with torch.autocast("cpu", enabled=False):
                    shift = torch.mv(probs.T, slopes[n]).add_(shift)
            probs.mul_(slope - shift)
            if source.ndim:
                probs.scatter_add_(0, labels.unsqueeze(0), source.unsqueeze(0))
        return result, None, None


def _softmax(logits: Tensor, out: Tensor) -> Tensor:
    """Write the probabilities of logits (C, B) into `out` and return the log-sum-exp (B)."""
    torch.exp(logits, out=out)
    total = out.sum(dim=0)
    low, high = total.aminmax()
    if low > SMALLEST_SUM and high < torch.inf:
        out.mul_(total.reciprocal())
        return total.log_()
    # a sum left the range of the numbers: count from the largest logit, at the cost of two more passes
    top = logits.amax(dim=0)
    total = torch.sub(logits, top, out=out).exp_().sum(dim=0)
    out.div_(total)
    return total.log_().add_(top)


def _blocks(logits: Tensor) -> Iterator[tuple[int, slice]]:
    """Yield the sample and the range of voxels of each block of logits (N, C, V)."""
    num_samples, num_classes, num_voxels = logits.shape
    step = max(1, BLOCK_NUMBERS // num_classes)
    for n in range(num_samples):
        for start in range(0, num_voxels, step):
            yield n, slice(start, start + step)


class _SumByClass(torch.autograd.Function):
    """Sum over the voxels of each class of one value a voxel; the backward is a gather."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, target: Tensor, num_classes: int) -> Tensor:
        """Return the sums (N, C) of values (N, V)."""
        ctx.save_for_backward(target)
        ctx.dtype = values.dtype
        wide = _wide(values)
        if values.device.type == "cpu":
            # float64, since scatter_add adds one by one: in float32 the background's sum would lose digits
            sums = values.new_zeros((len(values), num_classes), dtype=wide)
            return sums.scatter_add_(1, target, values.to(wide))
        # elsewhere scatter_add is atomic: slow on so few addresses, and no two runs would add in the same order
        zero = values.new_zeros(())
        sums_by_class = [torch.where(target == k, values, zero).sum(dim=1, dtype=wide) for k in range(num_classes)]
        return torch.stack(sums_by_class, dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient (N, V): every voxel receives that of its class."""
        (target,) = ctx.saved_tensors
        return grad.to(ctx.dtype).gather(1, target), None, None


def _wide(tensor: Tensor) -> torch.dtype:
    """Return the dtype of sums by class: float64 where the device has it."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


class _SumOverDevices(torch.autograd.Function):
    """Sum over the processes of a group; its adjoint is the same sum."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        """Return the sum of every process's values."""
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """Return the sum of every process's gradient; DDP divides by their number afterwards."""
        total = grad.clone()
        torch.distributed.all_reduce(total)
        return total


def sum_over_devices(values: Tensor) -> Tensor:
    """Return the sum over all processes that share a batch; the values themselves where there is one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return cast("Tensor", _SumOverDevices.apply(values))  # type: ignore[no-untyped-call]
    return values


class Voxels:
    """Logits and labels of one batch, with all that losses ask of them computed once.

    Reductions over voxels run in float32 or better (float16 and bfloat16 logits are widened first,
    float64 stays; sums by class are float64 where the device has it). Gradients are of first order only.

    Parameters
    ----------
    logits
        Shape (N, C, ...), floating point, C >= 2.
    target
        Label map of shape (N, ...) or (N, 1, ...), integer, 0 to C - 1; 0 is the background.
    squares
        Whether `squared_masses` will be asked for.
    labelled
        Boolean (N, C): which classes were outlined in each sample. The others' probability counts as the
        background's, see `hnlib.losses.merge_unlabelled`. None: all were outlined.

    Raises
    ------
    ValueError
        When a shape or dtype does not fit, or a label lies outside the classes. Labels are only
        looked at on the CPU: reading them on an accelerator would stall it, and there an illegal
        label ends in the assertion of the device instead.

    Attributes
    ----------
    logits, target
        The input as (N, C, V) and (N, V).
    true_log_probs
        Log-probability of each voxel's true class, shape (N, V).
    masses
        Sum over voxels of p, shape (N, C).
    labelled
        As given; None means all.

    Notes
    -----
    N samples, C classes, V voxels a sample; p is the softmax, g the one-hot label. A loss that
    weights, masks or ranks voxels works on the (N, V) quantities and `sum_by_class`; one that changes
    logits (a margin) makes its own Voxels from them.
    """

    def __init__(self, logits: Tensor, target: Tensor, squares: bool = False, labelled: Tensor | None = None) -> None:
        check(logits, target)
        self.labelled = labelled
        self.num_classes = logits.shape[1]
        self.target = target.flatten(1).long()
        self.logits = logits.flatten(2).to(torch.promote_types(logits.dtype, torch.float32))
        if labelled is not None:
            check_labelled(labelled, logits, self.target)
            self.logits = merge_unlabelled(self.logits, labelled)
        # kept by hand, since torch.compile cannot look into functools.cached_property
        self._true_probs: Tensor | None = None
        self._counts: Tensor | None = None
        self._intersections: Tensor | None = None
        blocked = logits.device.type == "cpu" and not torch.compiler.is_compiling()
        sums = _BlockedSums if blocked else _WholeSums
        found = sums.apply(self.logits, self.target, squares)  # type: ignore[no-untyped-call]
        self.true_log_probs, self.masses, self._squared_masses = cast("tuple[Tensor, ...]", found[:3])
        self._squares = squares
        if blocked:
            self._intersections = found[3]

    @property
    def true_probs(self) -> Tensor:
        """Probability of each voxel's true class, shape (N, V)."""
        if self._true_probs is None:
            with torch.enable_grad():  # whoever asks first may not need the gradient; the next one may
                self._true_probs = self.true_log_probs.exp()
        return self._true_probs

    @property
    def squared_masses(self) -> Tensor:
        """Sum over voxels of p^2, shape (N, C)."""
        if not self._squares:
            raise ValueError("squared masses were not asked for: make Voxels(..., squares=True)")
        return self._squared_masses

    @property
    def counts(self) -> Tensor:
        """Number of voxels of each class, shape (N, C), without gradient."""
        if self._counts is None:
            self._counts = self._count()
        return self._counts

    @property
    def intersections(self) -> Tensor:
        """Sum over voxels of p g, shape (N, C)."""
        if self._intersections is None:
            self._intersections = self.sum_by_class(self.true_probs)
        return self._intersections

    def sum_by_class(self, values: Tensor) -> Tensor:
        """Sum values (N, V) over the voxels of each class: shape (N, C)."""
        sums = _SumByClass.apply(values, self.target, self.num_classes)  # type: ignore[no-untyped-call]
        return cast("Tensor", sums)

    def _count(self) -> Tensor:
        target = self.target
        if target.device.type == "cpu":
            counts = torch.stack([own.bincount(minlength=self.num_classes) for own in target])
        else:  # without atomics, as in _SumByClass
            counts = torch.stack([(target == k).sum(dim=1) for k in range(self.num_classes)], dim=1)
        return counts.to(_wide(target))


class VoxelLoss(nn.Module, ABC):
    """A loss that is a function of `Voxels`, so that a sum of losses computes the softmax once.

    Attributes
    ----------
    squares
        Whether `value` reads `Voxels.squared_masses`.
    """

    squares = False

    @abstractmethod
    def value(self, voxels: Voxels) -> Tensor:
        """Return the loss, a scalar."""

    def forward(self, logits: Tensor, target: Tensor, labelled: Tensor | None = None) -> Tensor:
        """Return the loss, a scalar, of logits (N, C, ...) and an integer label map (N, ...).

        `labelled` (N, C), boolean, says which classes were outlined in each sample; None means all.
        """
        voxels = Voxels(logits, target, squares=self.squares, labelled=labelled)
        return refuse_nan(self.value(voxels), voxels.true_log_probs)

    # nn.Module declares __call__ as Any; callers deserve the signature
    __call__: Callable[..., Tensor]


def without_channel(logits: Tensor, target: Tensor) -> Tensor:
    """Return labels (N, ...) for logits (N, C, ...), also of labels (N, 1, ...) as MONAI has them."""
    return target.squeeze(1) if target.ndim == logits.ndim and target.shape[1] == 1 else target


def check(logits: Tensor, target: Tensor) -> None:
    """Raise ValueError unless logits (N, C, ...) and labels (N, ...) or (N, 1, ...) can enter a loss together."""
    for name, given in (("logits", logits), ("target", target)):
        if not isinstance(given, Tensor):
            raise ValueError(
                f"{name}: a {type(given).__name__} came, one tensor is needed; for the heads of a network put the loss "
                "into DeepSupervision, which takes a list of heads and the labels at full resolution"
            )
    if not logits.is_floating_point():
        raise ValueError(f"logits are {logits.dtype}; floating-point numbers before the softmax are needed")
    if target.dtype not in _INTEGERS:
        raise ValueError(f"target is {target.dtype}; an integer label map is needed, such as target.long()")
    if logits.ndim < 3 or logits.shape[1] < 2:
        raise ValueError(f"logits have shape {tuple(logits.shape)}; (N, C, ...) with at least two classes is needed")
    wanted = (logits.shape[0], *logits.shape[2:])
    if tuple(without_channel(logits, target).shape) != wanted:
        raise ValueError(
            f"target has shape {tuple(target.shape)} but logits {tuple(logits.shape)}; "
            f"an integer label map of shape {wanted} is needed, or with a channel axis of length 1 behind the first"
        )
    if logits.numel() == 0:
        raise ValueError(f"logits have shape {tuple(logits.shape)}; at least one voxel is needed")
    if target.device.type == "cpu" and not torch.compiler.is_compiling():
        low, high = (int(v) for v in target.aminmax())
        if low < 0 or high >= logits.shape[1]:
            raise ValueError(
                f"target holds labels {low} to {high} but logits have {logits.shape[1]} classes; "
                f"labels from 0 to {logits.shape[1] - 1} are needed (there is no ignore label)"
            )
