"""Makes the folders beside this file: what transformers, peft, TRL and torch compute when the small checkpoints of
the folder above are trained. Needs the packages of crates/globe-train/tests/golden/requirements.txt.

    python make.py            # NAME/adapter_config.json, adapter_model.safetensors, golden.safetensors of an adapter,
                              # NAME/full.safetensors of all weights
    python make.py --check    # makes them elsewhere and compares
"""

import argparse
import json
import shutil
import sys
import tempfile
import types
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import Trainer
from trl import GRPOTrainer

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from tiny_qwen import load, make_inputs  # noqa: E402

# Folder, rank, alpha, targets, lengths of the answers.
CASES = {
    "tied": (4, 8, ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], [5, 12, 1, 9]),
    "untied": (3, 6, ["q_proj", "v_proj", "down_proj"], [7, 2]),
}
# Cases whose ten steps with all weights train the tower as well.
TRAIN_VISION = {"untied"}
# Tensors whose gradients and changes are kept in full, besides the fingerprints of all.
KEPT = (".bias", "norm.weight", "layernorm.weight", "norm1.weight", "ln_q.weight", "k_proj.weight", "attn.proj.weight")
ADVANTAGES = [1.3, -0.9, 0.4, -0.8]
TEMPERATURE, BETA, STEPS, LR, MAX_GRAD_NORM = 0.8, 0.04, 10, 1e-2, 1.0
FULL_LR = 1e-4


def forward(model, inputs, answers):
    """Log-probability and entropy of every token of every answer, each answer in a pass of its own."""
    rows = []
    for answer in answers:
        ids = torch.tensor([answer])
        full = {**inputs, "input_ids": torch.cat([inputs["input_ids"], ids], 1)}
        full["attention_mask"] = torch.ones_like(full["input_ids"])
        full["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(ids)], 1)
        logits = model(**full).logits[0, inputs["input_ids"].shape[1] - 1 : -1] / TEMPERATURE
        logp = logits.log_softmax(-1)
        chosen = logp.gather(-1, ids.T)[:, 0]
        rows.append((chosen, -(logp.exp() * logp).sum(-1)))
    return rows


def padded(rows, longest):
    return torch.stack([torch.nn.functional.pad(row, (0, longest - len(row))) for row in rows])


def trl_loss(logp, entropy, reference, mask, advantages):
    """TRL's own loss (DAPO, on-policy, with a reference) of these log-probabilities."""
    trainer = object.__new__(GRPOTrainer)
    trainer.loss_type, trainer.beta = "dapo", BETA
    trainer.epsilon_low = trainer.epsilon_high = 0.2
    trainer.importance_sampling_level, trainer.top_entropy_quantile = "token", 1.0
    trainer.off_policy_mask_threshold = None
    trainer.use_vllm = trainer.vllm_importance_sampling_correction = False
    trainer.current_gradient_accumulation_steps, trainer.max_completion_length = 1, logp.shape[1]
    trainer.aux_loss_enabled = trainer._entropy_bonus_enabled = False
    trainer.args = types.SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1)
    same = types.SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x)
    trainer.accelerator, trainer.model = same, types.SimpleNamespace(training=True)
    trainer._metrics = {"train": defaultdict(list)}
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (logp, entropy, None)
    n = len(logp)
    batch = {
        "prompt_ids": torch.zeros(n, 1, dtype=torch.long),
        "prompt_mask": torch.ones(n, 1, dtype=torch.long),
        "completion_ids": torch.zeros(n, logp.shape[1], dtype=torch.long),
        "completion_mask": mask,
        "advantages": advantages,
        "ref_per_token_logps": reference,
        "num_items_in_batch": mask.sum(),
    }
    return trainer._compute_loss(trainer.model, batch)


def prepare(name: str):
    """The model of the folder above in f64, its prompt, and answers with their advantages and mask."""
    lengths = CASES[name][3]
    base = HERE.parent / name
    facts = json.loads((base / "golden.json").read_text())
    loaded = load(base, dtype=torch.float64)
    images = [Image.open(HERE.parent / image) for image in facts["images"]]
    _, inputs = make_inputs(loaded, images, facts["prompt"], facts["system"])
    inputs = dict(inputs)
    inputs["pixel_values"] = inputs["pixel_values"].double()
    vocab = loaded.model.config.text_config.vocab_size
    image_token = loaded.model.config.image_token_id
    words = [i for i in range(vocab) if i != image_token and i < 300]
    pick = torch.Generator().manual_seed(3)
    answers = [[words[int(i)] for i in torch.randint(len(words), (n,), generator=pick)] for n in lengths]
    advantages = torch.tensor(ADVANTAGES[: len(answers)], dtype=torch.float64)
    mask = padded([torch.ones(n, dtype=torch.float64) for n in lengths], max(lengths))
    return loaded.model, inputs, answers, advantages, mask


def train(model, inputs, answers, reference, mask, advantages, optimiser, trained, at_first):
    """Ten steps: losses and norms of gradients; `at_first` sees the first log-probabilities and entropies."""
    losses, norms = [], []
    for step in range(STEPS):
        rows = forward(model, inputs, answers)
        logp, entropy = (padded([row[i] for row in rows], mask.shape[1]) for i in (0, 1))
        loss = trl_loss(logp, entropy, reference, mask, advantages)
        model.zero_grad()
        loss.backward()
        if step == 0:
            at_first(logp.detach(), entropy.detach())
        norms.append(torch.nn.utils.clip_grad_norm_(trained, MAX_GRAD_NORM))
        losses.append(loss.detach())
        optimiser.step()
    return torch.stack(losses), torch.stack(norms)


def make(name: str, out: Path) -> None:
    rank, alpha, targets, lengths = CASES[name]
    torch.manual_seed(7)
    base, inputs, answers, advantages, mask = prepare(name)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=rf".*language_model.*\.({'|'.join(targets)})")
    model = get_peft_model(base, config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            # Small, with B not zero, so that every gradient is far from zero; exact in f32.
            parameter.data = (0.05 * torch.randn(parameter.shape)).float().double()
    start = {k: v.float().contiguous().clone() for k, v in get_peft_model_state_dict(model).items()}
    with torch.no_grad(), model.disable_adapter():
        reference = padded([logp for logp, _ in forward(model, inputs, answers)], max(lengths))

    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=LR, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    out.mkdir(parents=True, exist_ok=True)
    golden = {}

    def at_first(logp, entropy):
        golden["logp"], golden["entropy"] = logp, entropy
        gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
        golden.update({"gradient." + n.replace(".default", ""): g.clone() for n, g in gradients.items()})

    losses, norms = train(model, inputs, answers, reference, mask, advantages, optimiser, trained, at_first)
    golden |= {"after." + k: v for k, v in get_peft_model_state_dict(model).items()}
    golden["loss"], golden["grad_norm"] = losses, norms
    golden["reference"], golden["advantages"] = reference, advantages
    golden = {k: v.detach().float().contiguous() for k, v in golden.items()}
    golden["prompt"] = inputs["input_ids"][0].int()
    golden["answers"] = padded([torch.tensor(a) for a in answers], max(lengths)).int()
    golden["lengths"] = torch.tensor(lengths).int()
    save_file(golden, out / "golden.safetensors")
    save_file(start, out / "adapter_model.safetensors", metadata={"format": "pt"})
    fields = config.to_dict() | {"target_modules": sorted(targets), "peft_type": "LORA"}
    kept = ["r", "lora_alpha", "target_modules", "peft_type", "bias", "use_rslora", "fan_in_fan_out"]
    (out / "adapter_config.json").write_text(json.dumps({k: fields[k] for k in kept}, indent=2) + "\n")


def noise(n: int) -> torch.Tensor:
    """`random(n, 1)` of tests/src/lib.rs: SplitMix64, evenly over [-1, 1)."""
    step = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        z = step * np.arange(2, n + 2, dtype=np.uint64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = (z ^ (z >> np.uint64(31))) >> np.uint64(40)
    return torch.from_numpy(z.astype(np.float64) / 2**23 - 1)


def canonical(name: str) -> str:
    """The names that globe uses, those of the first published layout."""
    return name.replace("model.visual.", "visual.").replace("model.language_model.", "model.")


def described(kind: str, tensors: dict) -> dict:
    """Norm and product with noise of every tensor, and some tensors as they are."""
    golden = {}
    for name, value in tensors.items():
        value = value.detach().double().clone()  # clipping works in place
        product = value.flatten() @ noise(value.numel())
        golden[f"{kind}.print.{name}"] = torch.stack([value.norm(), product])
        if name.endswith(KEPT):
            golden[f"{kind}.{name}"] = value
    return golden


def make_full(name: str, out: Path) -> None:
    """All weights trained: gradients at the start, and what ten steps change."""
    model, inputs, answers, advantages, mask = prepare(name)
    with torch.no_grad():
        reference = padded([logp for logp, _ in forward(model, inputs, answers)], mask.shape[1])
    every = {canonical(n): p for n, p in model.named_parameters()}  # a tied head is listed once
    is_trained = lambda n: name in TRAIN_VISION or not n.startswith("visual.")  # noqa: E731
    trained = {n: p for n, p in every.items() if is_trained(n)}
    decayed = {canonical(n) for n in Trainer.get_decay_parameter_names(None, model)}
    text = {n for n in every if not n.startswith("visual.")}
    assert decayed & text == {n for n in text if every[n].ndim > 1}, "ours decays what transformers decays"
    groups = [
        {"params": [p for p in trained.values() if p.ndim > 1], "weight_decay": 0.1},
        # transformers decays the norms of the tower as well, whose names its patterns miss.
        {"params": [p for p in trained.values() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=FULL_LR, betas=(0.9, 0.95), eps=1e-8)
    before = {n: p.detach().clone() for n, p in trained.items()}
    golden = {}

    def at_first(*_):
        golden.update(described("gradient", {n: p.grad for n, p in every.items()}))

    losses, norms = train(
        model, inputs, answers, reference, mask, advantages, optimiser, list(trained.values()), at_first
    )
    golden |= described("change", {n: p.detach() - before[n] for n, p in trained.items()})
    golden["loss"], golden["grad_norm"] = losses, norms
    golden = {k: v.detach().float().contiguous() for k, v in golden.items()}
    save_file(golden, out / "full.safetensors")


def check() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in CASES:
            make(name, Path(folder) / name)
            make_full(name, Path(folder) / name)
            for file in ["golden.safetensors", "adapter_model.safetensors", "full.safetensors"]:
                got, want = (load_file(Path(f) / name / file) for f in (folder, HERE))
                assert got.keys() == want.keys(), (name, file)
                for key, value in got.items():
                    assert torch.allclose(value, want[key], rtol=1e-5, atol=1e-7), (name, file, key)
    print("all the same")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        return check()
    for name in CASES:
        shutil.rmtree(HERE / name, ignore_errors=True)
        make(name, HERE / name)
        make_full(name, HERE / name)
        size = sum(f.stat().st_size for f in (HERE / name).iterdir())
        print(name, f"{size} bytes")


if __name__ == "__main__":
    main()
