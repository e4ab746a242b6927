"""Several processes that train one model: each takes a share of every batch.

All of them hold the same weights and draw the same batch; a process encodes its own share of it. No
wrapper (DistributedDataParallel) is used: it reduces gradients during one backward pass, while
gradient caching makes many, and averages them, while the shares of a loss add up. Here each process
ends up with the gradients of its share, and they are summed once a step.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from clipsearch.errors import TrainingError


@dataclass(frozen=True)
class Team:
    """The processes that train together, and which of them this is; a single one needs no group.

    Every method that talks must be called by all of them, in the same order.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - it cannot be changed

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def share(self, count: int) -> tuple[int, int]:
        """(start, stop) of this process's part of ``count`` rows; parts differ by one at most."""
        least, more = divmod(count, self.size)
        start = self.rank * least + min(self.rank, more)
        return start, start + least + (self.rank < more)

    def place(self, count: int) -> tuple[int, int]:
        """(start, total): where ``count`` rows of this process lie among those of all."""
        if self.size == 1:
            return 0, count
        counts = torch.zeros(self.size, dtype=torch.int64, device=self.device)
        counts[self.rank] = count
        dist.all_reduce(counts)
        return int(counts[: self.rank].sum()), int(counts.sum())

    def gather(self, rows: Tensor, start: int, total: int) -> Tensor:
        """(total, ...) rows of all processes, without a graph. Shares may differ in length."""
        if self.size == 1:
            return rows.detach()
        whole = torch.zeros(total, *rows.shape[1:], dtype=rows.dtype, device=rows.device)
        whole[start : start + len(rows)] = rows.detach()
        dist.all_reduce(whole)  # the others have zeros there
        return whole

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place, the same to the bit in each."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def log_sum_exp(self, values: Tensor) -> Tensor:
        """The log of the sum of the exponentials of all processes' ``values``, entry by entry."""
        if self.size == 1:
            return values
        found = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(found, values)
        return torch.stack(found).logsumexp(dim=0)

    def any(self, is_so: bool) -> bool:
        """Whether it is so in one of the processes at least."""
        return bool(self.sum(torch.tensor([float(is_so)], device=self.device)).item())

    def agree(self, values: Sequence[float]) -> list[float]:
        """The first process's numbers, to the bit."""
        if self.size == 1:
            return list(values)
        told = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.broadcast(told, src=0)
        return [float(value) for value in told.tolist()]

    def sum_gradients(self, model: nn.Module) -> None:
        """Adds up what each process found for its share of the batch.

        A parameter has a gradient in all of them or in none. They travel as one vector.
        """
        if self.size == 1:
            return
        found = [p.grad for p in model.parameters() if p.grad is not None]
        whole = self.sum(torch.cat([gradient.flatten() for gradient in found]))
        for gradient, summed in zip(found, whole.split([g.numel() for g in found]), strict=True):
            gradient.copy_(summed.view_as(gradient))


ALONE = Team()


def processes_here() -> int:
    """How many processes torchrun has started on this machine; 1 without it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@contextmanager
def join_team(device: torch.device) -> Iterator[Team]:
    """The team that torchrun started this process for, or the process alone.

    NCCL where all have a GPU, else gloo. TrainingError if the others cannot be reached.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Team(device=device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            reason=f"the other processes of torchrun cannot be reached: {error}"
        ) from error
    try:
        yield Team(dist.get_rank(), size, device)
    finally:
        dist.destroy_process_group()
