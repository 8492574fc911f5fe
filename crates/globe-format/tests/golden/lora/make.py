"""Adapters of a small base, and what PEFT merges them to.

    python make.py    (peft 0.21.2, torch 2.15.0, safetensors 0.8.0)

Writes base.safetensors and, per case, a folder with the adapter as PEFT saves it and
merged.safetensors: the matrices that it changes, after merge_and_unload.
"""

import json
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
CASES = {
    "plain": dict(r=4, lora_alpha=6, target_modules=["q_proj", "down_proj"]),
    "rslora": dict(r=3, lora_alpha=5, target_modules=["q_proj"], use_rslora=True),
    "patterns": dict(
        r=2,
        lora_alpha=4,
        target_modules=["q_proj", "down_proj"],
        rank_pattern={"down_proj": 5},
        alpha_pattern={"layers.1.q_proj": 9},
    ),
}


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj = torch.nn.Linear(12, 20, bias=False)
        self.down_proj = torch.nn.Linear(17, 12, bias=False)


class Base(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList([Layer(), Layer()])


def base():
    torch.manual_seed(7)
    return Base()


def write(name, options):
    peft = get_peft_model(base(), LoraConfig(**options))
    torch.manual_seed(11)
    for key, value in peft.named_parameters():
        if "lora_" in key:  # B starts as zero, which would hide everything
            value.data = torch.randn_like(value) * 0.1
    peft.save_pretrained(HERE / name)
    (HERE / name / "README.md").unlink()
    config = HERE / name / "adapter_config.json"
    options = json.loads(config.read_text())
    options["target_modules"].sort()  # a set, in no order
    config.write_text(json.dumps(options, indent=2, sort_keys=True) + "\n")
    before, after = base().state_dict(), peft.merge_and_unload().state_dict()
    changed = {k: v.contiguous() for k, v in after.items() if not torch.equal(v, before[k])}
    save_file(changed, HERE / name / "merged.safetensors")
    assert changed and set(load_file(HERE / name / "merged.safetensors")) == set(changed)


if __name__ == "__main__":
    save_file(base().state_dict(), HERE / "base.safetensors")
    for name, options in CASES.items():
        write(name, options)
