"""Train the four small models of the zoo (LLaMA, Mistral, Phi, OPT) from scratch.

    python experiments/train_zoo/zoo_data.py ngram       # once: tokenizer, tokens, baselines
    python experiments/train_zoo/train_zoo.py --parallel # all four at once on one GPU
    python experiments/train_zoo/train_zoo.py --smoke    # a few steps on a CPU

A run writes a checkpoint every `save_every` steps and resumes from it with `--resume`. Batches,
initial weights and learning rate depend on the seed and the step alone, so an interrupted run
ends with the weights of an undisturbed one, unless `--max-seconds` shortens the schedule. The
settings are in `train_zoo.yaml`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
import yaml
import zoo_data
from targeted_dropout import TargetedDropout
from torch import Tensor
from zoo_card import write_card, write_json, write_model
from zoo_model import Batches, build, mean_loss

from neuroal.models.adapter import DecoderModel

HERE = Path(__file__).resolve().parent
FAMILIES = ["llama", "mistral", "phi", "opt"]


class Trainer:
    """Training state and loop of one model."""

    def __init__(self, name: str, config: dict[str, Any], args: argparse.Namespace) -> None:
        self.name, self.args = name, args
        self.seed, self.context = config["seed"], config["context"]
        self.options = config["smoke" if args.smoke else "train"]
        self.device = "cuda" if torch.cuda.is_available() and not args.smoke else "cpu"
        torch.manual_seed(self.seed)
        torch.set_float32_matmul_precision("high")
        self.model = build(config["models"][name], config["vocab"], self.context).to(self.device)
        self.model.set_attn_implementation("zoo_causal")
        self.forward = self.model
        if self.device == "cuda" and not args.no_compile:
            self.forward = torch.compile(self.model)
        self.streams = {
            part: torch.tensor(np.load(args.cache / f"{part}.npy").astype(np.int16)).to(self.device)
            for part in ("train", "valid", "heldout")
        }
        if args.smoke:  # a CPU would spend minutes on evaluation alone
            for part in ("valid", "heldout"):
                self.streams[part] = self.streams[part][: 8 * self.context]
        batch = self.options["batch"]
        self.batches = Batches(self.streams["train"], self.context, batch, self.seed)
        self.optimizer = self._optimizer()
        dropout = config["dropout"]
        linears = [linear.weight for linear in DecoderModel(self.model)]
        self.dropout = TargetedDropout(linears, dropout["share"], dropout["rate"], self.seed)
        self.step, self.before, self.start = 0, 0.0, args.started or time.time()
        self.log: list[dict[str, float]] = []
        self.best: dict[str, Any] = {"loss": math.inf}
        self.checkpoint = args.cache / f"{name}.checkpoint.pt"
        if args.resume and self.checkpoint.exists():
            self._load()

    def train(self) -> None:
        """Train until the schedule ends; evaluate and save at regular steps."""
        window: list[Tensor] = []
        while self.progress() < 1:
            window.append(self._step())
            self.step += 1
            last = self.progress() >= 1
            if self.step % self.options["eval_every"] == 0 or last:
                self._record(float(torch.stack(window).mean()))
                window = []
            if self.step % self.options["save_every"] == 0 and not last:
                self._save()
            if self.step == self.args.stop_after:
                self._save()
                raise SystemExit(f"{self.name}: stopped after step {self.step}")

    def finish(self) -> dict[str, Any]:
        """Write the model folder; return its figures."""
        self.model.load_state_dict(self.best["state"])
        self.model.set_attn_implementation("sdpa")
        folder = self.args.out / self.name
        write_model(folder, self.args.cache, self.model, self.log)
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        torch.set_float32_matmul_precision("highest")
        loss = mean_loss(model.to(self.device).eval(), self.streams["heldout"], self.context, 16)
        facts = {
            "name": self.name,
            "family": type(model).__name__,
            "parameters": sum(p.numel() for p in model.parameters()),
            "blocks": model.config.num_hidden_layers,
            "width": model.config.hidden_size,
            "steps": self.step,
            "kept": self.best["step"],
            "batch": self.options["batch"],
            "seed": self.seed,
            "share": self.dropout.share,
            "rate": self.dropout.rate,
            "heldout_ppl": math.exp(loss),
            "seconds": self.elapsed(),
            "device": torch.cuda.get_device_name() if self.device == "cuda" else "CPU",
        }
        self.checkpoint.unlink(missing_ok=True)
        return write_card(folder, self.args.cache, facts)

    def elapsed(self) -> float:
        return self.before + time.time() - self.start

    def progress(self) -> float:
        """Return the completed share of the schedule, by steps or by time, whichever is larger."""
        limit = self.args.max_seconds if self.step else None  # the first step is always taken
        return max(self.step / self.options["steps"], self.elapsed() / limit if limit else 0.0)

    def rate(self) -> float:
        """Return the learning rate: linear warm-up, then a cosine over the schedule."""
        peak, floor = self.options["lr"], self.options["final_lr"]
        cosine = floor + (1 - floor) * (1 + math.cos(math.pi * min(self.progress(), 1))) / 2
        return float(peak * cosine * min(1.0, (self.step + 1) / self.options["warmup"]))

    def _step(self) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        with self.dropout.at(self.step):
            try:
                loss = self._backward()
            except (
                Exception
            ) as error:  # compilation is optional, so continue after any of its errors
                if self.forward is self.model:
                    raise
                print(
                    f"{self.name}: compilation failed, continuing in eager mode: {error}",
                    flush=True,
                )
                self.forward = self.model
                self.optimizer.zero_grad()
                loss = self._backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.options["clip"])
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()

    def _backward(self) -> Tensor:
        ids = self.batches(self.step)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            loss: Tensor = self.forward(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        return loss

    def _record(self, train_loss: float) -> None:
        """Evaluate, print and log a row; keep the weights that are best on `valid`."""
        self.model.eval()
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            losses = {
                part: mean_loss(self.model, self.streams[part], self.context, 64)
                for part in ("valid", "heldout")
            }
        self.model.train()
        row = {
            "step": self.step,
            "tokens": self.step * self.options["batch"] * self.context,
            "train_loss": round(train_loss, 4),
            "valid_loss": round(losses["valid"], 4),
            "heldout_loss": round(losses["heldout"], 4),
            "lr": round(self.rate(), 7),
            "seconds": round(self.elapsed(), 1),
        }
        self.log.append(row)
        if losses["valid"] < self.best["loss"]:
            state = {key: value.cpu().clone() for key, value in self.model.state_dict().items()}
            self.best = {"loss": losses["valid"], "step": self.step, "state": state}
        print(self.name, *(f"{key}={value}" for key, value in row.items()), flush=True)

    def _optimizer(self) -> torch.optim.Optimizer:
        options = self.options
        weights = list(self.model.parameters())
        groups = [
            {"params": [p for p in weights if p.ndim > 1], "weight_decay": options["weight_decay"]},
            {"params": [p for p in weights if p.ndim < 2], "weight_decay": 0.0},
        ]
        betas = tuple(options["betas"])
        return torch.optim.AdamW(groups, options["lr"], betas, fused=self.device == "cuda")

    def _save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "elapsed": self.elapsed(),
            "log": self.log,
            "best": self.best,
        }
        torch.save(state, part := self.checkpoint.with_suffix(".part"))
        os.replace(part, self.checkpoint)

    def _load(self) -> None:
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.before = state["step"], state["elapsed"]
        self.log, self.best = state["log"], state["best"]


def parallel(args: argparse.Namespace, argv: list[str]) -> list[str]:
    """Train every model in a process of its own on one GPU; return the names that failed.

    A single model of this size leaves a GPU mostly idle.
    """
    own = [word for word in argv if word != "--parallel"] + ["--started", str(time.time())]
    command = [sys.executable, __file__, *own, "--models"]
    children = [subprocess.Popen([*command, name]) for name in args.models]
    return [name for name, c in zip(args.models, children, strict=True) if c.wait() != 0]


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--corpus", type=Path, default=zoo_data.CORPUS)
    parser.add_argument("--cache", type=Path, default=zoo_data.CACHE, help="tokens, checkpoints")
    parser.add_argument("--out", type=Path, default=zoo_data.ROOT / "neuroal" / "zoo")
    parser.add_argument("--config", type=Path, default=HERE / "train_zoo.yaml")
    parser.add_argument("--models", nargs="+", choices=FAMILIES, default=FAMILIES)
    parser.add_argument("--smoke", action="store_true", help="a few steps on the CPU")
    parser.add_argument("--resume", action="store_true", help="resume from the checkpoints")
    parser.add_argument("--parallel", action="store_true", help="all models at the same time")
    parser.add_argument("--no-compile", action="store_true", help="without torch.compile")
    parser.add_argument("--max-seconds", type=float, help="end the schedule after this time")
    parser.add_argument("--stop-after", type=int, help="save and stop after this step")
    parser.add_argument("--started", type=float, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: list[str]) -> None:
    args = parse(argv)
    config = yaml.safe_load(args.config.read_text())
    if not (args.cache / "facts.json").exists():
        args.cache.mkdir(parents=True, exist_ok=True)
        zoo_data.prepare(args.corpus, args.cache, config["vocab"], config["context"])
    failed: list[str] = []
    if args.parallel and args.started is None:
        failed = parallel(args, argv)
    else:
        for name in args.models:
            trainer = Trainer(name, config, args)
            trainer.train()
            print(json.dumps(trainer.finish()), flush=True)
    if args.started is None:  # in parallel training, only the parent process writes the file
        cards = sorted(args.out.glob("*/training.json"))
        write_json(args.out / "zoo.json", {c.parent.name: json.loads(c.read_text()) for c in cards})
    if failed:
        raise SystemExit(f"training failed: {', '.join(failed)}")


if __name__ == "__main__":
    main(sys.argv[1:])
