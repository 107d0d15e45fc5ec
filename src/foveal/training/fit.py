"""One stage of training through Transformers' `Trainer`: checkpoints, exact resuming, moving averages, logs.

A data set here gives one whole batch for each step, drawn from a generator seeded by the step alone. So a run that
continues after being killed sees exactly what an uninterrupted one sees.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Dataset, SequentialSampler

from foveal.training.recipe import RecipeError
from foveal.whole_file import whole_file

log = logging.getLogger(__name__)
COMPLETE = "ema.safetensors"  # written last of all, so a checkpoint that has it is whole


class Steps(Dataset[dict[str, Tensor]]):
    """`draw(step)` for each of `count` steps."""

    def __init__(self, count: int, draw: Callable[[int], dict[str, Tensor]]) -> None:
        self.count, self.draw = count, draw

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        return self.draw(step)


def fit(
    model: nn.Module,
    draw: Callable[[int], dict[str, Tensor]],
    folder: Path,
    *,
    steps: int,
    groups: list[dict[str, Any]],
    warmup: float,
    ema: float,
    half: bool,
    seed: int,
    save_every: int,
    resume: bool,
) -> nn.Module:
    """Trains `model` in place and leaves it with the moving average of its weights.

    Args:
        model: returns a mapping with `loss`, and what else is to be logged, single numbers.
        draw: the batch of a step, from its number alone.
        folder: of the stage: checkpoints, `metrics.jsonl`, TensorBoard logs.
        steps: of the optimiser.
        groups: parameter groups for AdamW, each with its `lr`.
        warmup: fraction of the steps over which the rate rises; it then falls along a cosine.
        ema: decay of the moving average, 0 for none.
        half: compute in bfloat16 where that is safe (autocast).
        seed: of dropout and the like.
        save_every: steps between checkpoints.
        resume: continue from the last whole checkpoint, where there is one.

    Raises:
        ImportError: if the `train` extra is missing.
    """
    try:
        import accelerate  # noqa: F401
        from transformers import (
            PrinterCallback,
            Trainer,
            TrainerCallback,
            TrainingArguments,
            get_cosine_schedule_with_warmup,
        )
    except ImportError as error:
        raise ImportError("training needs more packages; run: pip install 'foveal[train]'") from error

    class Average(TrainerCallback):
        """Keeps the moving average, saves it as a checkpoint's last file, and writes the metrics down."""

        def __init__(self) -> None:
            self.weights: dict[str, Tensor] = {}

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.weights = {name: value.detach().clone() for name, value in _floats(model).items()}
            if checkpoint is not None:
                saved = load_file(checkpoint / COMPLETE)
                self.weights = {name: saved[name].to(value.device) for name, value in self.weights.items()}

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            decay = min(ema, (1 + state.global_step) / (10 + state.global_step))
            live = _floats(model)
            torch._foreach_lerp_(list(self.weights.values()), [live[name] for name in self.weights], 1 - decay)

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            place = Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE
            beside = place.with_suffix(".part")
            save_file({name: value.contiguous() for name, value in self.weights.items()}, beside)
            os.replace(beside, place)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if args.disable_tqdm and "loss" in (logs or {}):
                print(told.line(state.global_step, steps, logs["loss"]), file=sys.stderr, flush=True)
            with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step, **(logs or {})}) + "\n")

    class StepTrainer(Trainer):
        told: dict[str, list[Tensor]] = {}  # noqa: RUF012

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **how: Any) -> Any:
            loss, outputs = super().compute_loss(model, inputs, return_outputs=True)
            for name, value in outputs.items():
                if name != "loss":
                    self.told.setdefault(name, []).append(value.detach().float())
            return loss

        def log(self, logs: dict[str, float], *args: Any, **how: Any) -> None:
            means = {name: torch.stack(values).mean().item() for name, values in self.told.items() if values}
            self.told.clear()
            super().log({**logs, **means}, *args, **how)

        def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
            return SequentialSampler(cast(Steps, self.train_dataset if train_dataset is None else train_dataset))

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        count = os.environ["WORLD_SIZE"]
        raise RecipeError(f"{count} processes were started, and training runs in one; start it without torchrun")
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = last_checkpoint(folder) if resume else None
    _forget_metrics(folder / "metrics.jsonl", after=_step_of(checkpoint))
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=1,
        bf16=half,
        use_cpu=not torch.cuda.is_available(),
        seed=seed,
        max_grad_norm=1.0,
        logging_steps=max(1, min(50, steps // 20)),
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_steps=save_every,
        save_total_limit=2,
        remove_unused_columns=False,
        report_to=["tensorboard"],
        disable_tqdm=not sys.stderr.isatty(),
        dataloader_pin_memory=False,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # a step's batch is whole: it is not to be dealt out to several
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98))
    schedule = get_cosine_schedule_with_warmup(optimiser, round(warmup * steps), steps)
    average = Average()
    trainer = StepTrainer(
        model=model,
        args=arguments,
        train_dataset=Steps(steps, draw),
        data_collator=_only,
        optimizers=(optimiser, schedule),
        callbacks=[average],
    )
    trainer.remove_callback(PrinterCallback)
    told = _Told(folder.name, _step_of(checkpoint))
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    if ema:
        live = _floats(model)
        with torch.no_grad():
            for name, value in average.weights.items():
                live[name].copy_(value)
    return model


class _Told:
    """Where there is no terminal for a bar: a line now and then of how far a stage is, and how long it will take."""

    def __init__(self, stage: str, first: int) -> None:
        self.stage, self.first, self.began = stage, first, time.perf_counter()

    def line(self, step: int, steps: int, loss: Any) -> str:
        each = (time.perf_counter() - self.began) / max(1, step - self.first)
        left = f"{each:.2f} s a step, {each * (steps - step) / 60:.0f} min left"
        return f"{self.stage}: step {step} of {steps}, loss {float(loss):.4f}, {left}"


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; None where there is none."""
    found = [place.parent for place in folder.glob(f"checkpoint-*/{COMPLETE}")]
    return max(found, key=_step_of, default=None)


def _step_of(checkpoint: Path | None) -> int:
    return 0 if checkpoint is None else int(checkpoint.name.rpartition("-")[2])


def _forget_metrics(file: Path, *, after: int) -> None:
    """Drops the lines of steps that are taken again; a line that was cut off as it was written counts as such."""
    if not file.exists():
        return
    kept = []
    for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
        with contextlib.suppress(json.JSONDecodeError, KeyError):
            if json.loads(line)["step"] <= after and line.endswith("\n"):
                kept.append(line)
    with whole_file(file) as new:
        new.writelines(kept)


def decayed(parameters: dict[str, nn.Parameter], *, rate: float, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: matrices and kernels decay, gains, biases and single numbers do not."""
    heavy = [value for value in parameters.values() if value.ndim > 1]
    light = [value for value in parameters.values() if value.ndim <= 1]
    if not heavy and not light:
        raise RecipeError("nothing to train: the model has no parameters")
    return [
        {"params": heavy, "lr": rate, "weight_decay": weight_decay},
        {"params": light, "lr": rate, "weight_decay": 0.0},
    ]


def _floats(model: nn.Module) -> dict[str, Tensor]:
    """Parameters (tied ones once) and float buffers by name."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: value for name, value in named if value.is_floating_point()}


def _only(items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return items[0]
