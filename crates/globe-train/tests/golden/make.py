"""Makes the goldens of globe-train: what TRL, torch and transformers compute, as JSON.

    pip install -r requirements.txt
    python make.py            # writes loss.json, optimiser.json, adapter/ and *.parquet
    python make.py --check    # makes them elsewhere and compares
    python verify.py          # reads with peft and TensorBoard what the Rust tests wrote here
"""

import argparse
import filecmp
import json
import pathlib
import tempfile
import types
from collections import defaultdict

import torch
from torch.optim import AdamW
from transformers import get_constant_schedule_with_warmup, get_cosine_schedule_with_warmup
from transformers.trainer_pt_utils import LabelSmoother
from trl import GRPOTrainer
from trl.trainer.utils import nanstd

HERE = pathlib.Path(__file__).parent
BATCH, TOKENS, MAX_TOKENS = 4, 6, 16
MICRO_BATCHES = 2


def stub(options, logp, entropy):
    """A trainer without a model: `_compute_loss` reads these attributes and nothing else."""
    trainer = object.__new__(GRPOTrainer)
    trainer.loss_type = options["loss_type"]
    trainer.beta = options["beta"]
    trainer.epsilon_low = options["epsilon_low"]
    trainer.epsilon_high = options["epsilon_high"]
    trainer.importance_sampling_level = options["importance"]
    trainer.top_entropy_quantile = 1.0
    trainer.off_policy_mask_threshold = None
    trainer.use_vllm = options["sampler"] != "off"
    trainer.vllm_importance_sampling_correction = trainer.use_vllm
    trainer.current_gradient_accumulation_steps = MICRO_BATCHES
    trainer.max_completion_length = MAX_TOKENS
    trainer.aux_loss_enabled = False
    trainer._entropy_bonus_enabled = False
    trainer.args = types.SimpleNamespace(
        delta=options["delta"], use_bias_correction_kl=False, steps_per_generation=MICRO_BATCHES
    )
    trainer.accelerator = types.SimpleNamespace(
        num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x
    )
    trainer.model = types.SimpleNamespace(training=True)
    trainer._metrics = {"train": defaultdict(list)}
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (logp, entropy, None)
    return trainer


def sampler_ratio(options, old, sampling, mask):
    diff = (old - sampling) * mask
    mode = options["sampler"]
    if mode.startswith("sequence"):
        diff = diff.sum(-1, keepdim=True)
    ratio = diff.exp()
    if mode.endswith("truncate"):
        return ratio.clamp(min=0.0, max=3.0)
    return ratio.masked_fill((ratio < 0.0) | (ratio > 3.0), 0.0)


def loss_inputs():
    draw = torch.Generator().manual_seed(11)
    normal = lambda scale: scale * torch.randn(BATCH, TOKENS, generator=draw, dtype=torch.float64)
    logp = -normal(1.0).abs() - 0.05
    mask = torch.ones(BATCH, TOKENS, dtype=torch.float64)
    mask[1, 4:] = 0
    mask[2, 1:] = 0
    mask[3, 5:] = 0
    return {
        "logp": logp,
        "old": logp + normal(0.25),
        "reference": logp + normal(0.4),
        "sampling": logp + normal(0.5),
        "entropy": normal(1.0).abs(),
        "mask": mask,
        "advantages": torch.tensor([1.3, -0.9, 0.4, -0.8], dtype=torch.float64),
    }


def loss_case(inputs, options):
    logp = inputs["logp"].clone().requires_grad_()
    trainer = stub(options, logp, inputs["entropy"])
    old = inputs["old"] if options["old"] else None
    batch = {
        "prompt_ids": torch.zeros(BATCH, 1, dtype=torch.long),
        "prompt_mask": torch.ones(BATCH, 1, dtype=torch.long),
        "completion_ids": torch.zeros(BATCH, TOKENS, dtype=torch.long),
        "completion_mask": inputs["mask"],
        "advantages": inputs["advantages"],
        "ref_per_token_logps": inputs["reference"],
        # This micro-batch and one like it.
        "num_items_in_batch": inputs["mask"].sum() * MICRO_BATCHES,
    }
    if old is not None:
        batch["old_per_token_logps"] = old
    if options["sampler"] != "off":
        stop = logp.detach() if old is None else old
        batch["importance_sampling_ratio"] = sampler_ratio(
            options, stop, inputs["sampling"], inputs["mask"]
        )
    loss = trainer._compute_loss(trainer.model, batch)
    loss.backward()
    metrics = {name: values[0] for name, values in trainer._metrics["train"].items()}
    return {**options, "loss": loss.item(), "dlogp": logp.grad.tolist(), "metrics": metrics}


def loss_options():
    base = {
        "beta": 0.0, "epsilon_low": 0.2, "epsilon_high": 0.2, "delta": None, "old": True,
        "sampler": "off",
    }
    for loss_type in ["grpo", "bnpo", "dr_grpo", "dapo"]:
        for importance in ["token", "sequence"]:
            for change in [
                {}, {"beta": 0.04}, {"epsilon_high": 0.28}, {"delta": 1.1}, {"old": False},
                {"sampler": "token_truncate", "beta": 0.04}, {"sampler": "token_mask"},
                {"sampler": "sequence_truncate"}, {"sampler": "sequence_mask", "old": False},
            ]:
                yield {"loss_type": loss_type, "importance": importance, **base, **change}


def advantage_cases():
    nan = float("nan")
    rewards = torch.tensor([1, 0.2, 0, 1, 0.5, 0.5, 0.5, 0.5, nan, 1, 0, 0.2], dtype=torch.float64)
    grouped = rewards.view(-1, 4)
    centred = (grouped - grouped.nanmean(1, keepdim=True)).flatten()
    group = nanstd(grouped, dim=1).repeat_interleave(4)
    scaled = {
        "group": centred / (group + 1e-4),
        "batch": centred / (nanstd(rewards) + 1e-4),
        "none": centred,
    }
    return {
        "rewards": [None if r.isnan() else r.item() for r in rewards],
        **{name: values.nan_to_num(0.0).tolist() for name, values in scaled.items()},
    }


def cross_entropy_case():
    draw = torch.Generator().manual_seed(5)
    logits = torch.randn(2, 4, 9, generator=draw, dtype=torch.float64)
    labels = torch.tensor([[-100, 3, 8, 0], [-100, 1, -100, -100]])
    # The smoother shifts: position t predicts label t + 1.
    losses = {
        str(eps): LabelSmoother(epsilon=eps)({"logits": logits}, labels, shift_labels=True).item()
        for eps in [0.0, 0.1]
    }
    logps = logits.log_softmax(-1)[:, :-1]
    target = labels[:, 1:]
    chosen = logps.gather(-1, target.clamp(min=0)[..., None])[..., 0]
    return {
        "logp": chosen.tolist(), "mean_logp": logps.mean(-1).tolist(),
        "mask": (target != -100).tolist(), "losses": losses,
    }


def optimiser():
    draw = torch.Generator().manual_seed(3)
    values = torch.randn(12, generator=draw)
    gradients = [torch.randn(12, generator=draw) * 10 ** (i - 1) for i in range(4)]
    parameter = torch.nn.Parameter(values.clone())
    adam = AdamW([parameter], lr=1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, foreach=False)
    steps = []
    for gradient in gradients:
        parameter.grad = gradient.clone()
        norm = torch.nn.utils.clip_grad_norm_([parameter], 1.0, foreach=False).item()
        adam.step()
        state = adam.state[parameter]
        steps.append({
            "gradient": gradient.tolist(), "norm": norm, "parameter": parameter.tolist(),
            "exp_avg": state["exp_avg"].tolist(), "exp_avg_sq": state["exp_avg_sq"].tolist(),
        })
    schedules = {}
    for name, make in [
        ("cosine", lambda o: get_cosine_schedule_with_warmup(o, 3, 20)),
        ("constant", lambda o: get_constant_schedule_with_warmup(o, 3)),
    ]:
        opt = AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        schedule = make(opt)
        rates = []
        for _ in range(22):
            rates.append(opt.param_groups[0]["lr"])
            opt.step()
            schedule.step()
        schedules[name] = rates
    return {"start": values.tolist(), "steps": steps, "schedules": schedules}


def adapter(folder):
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import save_file
    from verify import tiny_model

    torch.manual_seed(1)
    config = LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj", "down_proj"], bias="none")
    model = get_peft_model(tiny_model(), config)
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value)
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    hidden = torch.linspace(-1, 1, 6)
    save_file({"x": hidden, "y": model(hidden)}, folder / "forward.safetensors")


def parquet(folder):
    """MP16-Reason's layout with invented rows: seven rows in groups of three, the fifth photo damaged."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    def photo(i):
        out = io.BytesIO()
        Image.new("RGB", (8 + i, 6), (40 * i, 90, 200)).save(out, "PNG")
        return out.getvalue() if i != 4 else out.getvalue()[:50]

    places = [("France", "Paris"), ("Japan", "Kyoto"), ("Kenya", "Nairobi")]
    rows = []
    for i in range(7):
        country, city = places[i % 3]
        rows.append({
            "images": [{"bytes": photo(i), "path": f"{i}.png"}],
            "response": f"<think>Row {i}.</think>",
            "solution": f"<country>{country}</country> <city>{city}</city>",
            "entities": [{"text": "palm tree"}, {"text": f"sign {i}"}],
        })
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, folder / "rows.parquet", row_group_size=3, compression="snappy")
    rows[1]["solution"] = "Japan"
    table = pa.Table.from_pylist(rows[:2])
    pq.write_table(table, folder / "bad.parquet", compression="snappy")


def make(folder):
    inputs = loss_inputs()
    loss = {
        "micro_batches": MICRO_BATCHES,
        "max_completion_tokens": MAX_TOKENS,
        "inputs": {name: value.tolist() for name, value in inputs.items()},
        "cases": [loss_case(inputs, options) for options in loss_options()],
        "advantages": advantage_cases(),
        "cross_entropy": cross_entropy_case(),
    }
    for name, value in [("loss", loss), ("optimiser", optimiser())]:
        (folder / f"{name}.json").write_text(json.dumps(value) + "\n")
    adapter(folder / "adapter")
    parquet(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        with tempfile.TemporaryDirectory() as folder:
            make(pathlib.Path(folder))
            names = ["loss.json", "optimiser.json", "adapter/adapter_model.safetensors"]
            names += ["rows.parquet", "bad.parquet"]
            bad = [n for n in names if not filecmp.cmp(HERE / n, f"{folder}/{n}", shallow=False)]
            raise SystemExit(f"differ: {bad}" if bad else 0)
    make(HERE)
