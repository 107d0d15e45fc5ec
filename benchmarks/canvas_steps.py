"""Steps of training on canvases: one order and schedule for all, taken up again where they stopped."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from canvases import Canvases
from safetensors.torch import save_file
from torch import Tensor, nn

from foveal.whole_file import whole_file


@dataclass(frozen=True)
class Run:
    """What all share: steps of how many canvases, the seed, the peak rate, how a fovea's cells are pooled, and how
    finely a head's teacher surveys the canvas (the level of its windows).
    """

    steps: int
    batch: int
    seed: int
    rate: float
    pool: Literal["area", "cell"]
    survey: int


def take_steps(
    name: str,
    whole: nn.ModuleDict,
    loss_of: Callable[[Tensor, Tensor, Tensor], Tensor],
    data: Canvases,
    run: Run,
    kept: Path,
) -> tuple[float, float]:
    """Trains all parts of a module; the weights go to `kept`, and beside it, every 250 steps, the state to go on from.

    Args:
        name: what is trained, for the log.
        whole: its parts, each of which has its own gradient clipped.
        loss_of: (canvases, labels, centres of the objects) -> the loss.
        data: the canvases.
        run: how many steps, and which.
        kept: a file of safetensors.

    Returns:
        The seconds it took, and the mean loss of the last 50 steps.
    """
    whole.to(data.device).train().to(memory_format=torch.channels_last)  # in which all ways are fastest
    optimiser, schedule = _optimiser(whole, run)
    order = np.random.default_rng(run.seed)
    begun, spent, losses, state = 0, 0.0, [], kept.with_suffix(".part")
    if state.exists():
        held = torch.load(state, weights_only=True, map_location=data.device)
        for thing, numbers in zip((whole, optimiser, schedule), held["states"], strict=True):
            thing.load_state_dict(numbers)
        begun, spent, losses = held["step"], held["spent"], held["losses"]
    began = time.perf_counter() - spent
    for step in range(run.steps):
        rows = [data.taught[row] for row in order.integers(len(data.taught), size=run.batch)]
        if step < begun:
            continue
        x, labels, centres = data.draw(rows, run.seed * 1_000_003 + step, None)
        with torch.autocast(data.device.type, torch.bfloat16):
            loss = loss_of(x, labels, centres)
        optimiser.zero_grad()
        loss.backward()
        for part in whole.values():
            nn.utils.clip_grad_norm_(part.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.detach())
        if step % 50 == 49:
            losses = [float(value) for value in losses[-50:]]
            spent = time.perf_counter() - began
            print(f"{name}: step {step + 1} of {run.steps}, loss {np.mean(losses):.3f}, {spent:.0f} s", flush=True)
        if step % 250 == 249:
            states = [thing.state_dict() for thing in (whole, optimiser, schedule)]
            with whole_file(state, "wb") as file:
                torch.save({"states": states, "step": step + 1, "spent": spent, "losses": losses}, file)
    spent = time.perf_counter() - began
    save_file({key: value.contiguous() for key, value in whole.state_dict().items()}, kept)
    state.unlink(missing_ok=True)
    return spent, float(np.mean([float(value) for value in losses[-50:]]))


def _optimiser(module: nn.Module, run: Run) -> tuple[torch.optim.Optimizer, Any]:
    """Up within a fiftieth of the steps, held, and down to nothing over the last two fifths: places are found late."""
    optimiser = torch.optim.AdamW(module.parameters(), run.rate, weight_decay=0.05)
    return optimiser, torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, (step + 1) / (0.02 * run.steps), (run.steps - step) / (0.4 * run.steps))
    )
