"""Reads what the Rust tests wrote here with the libraries it is meant for: peft and TensorBoard."""

import pathlib
import types

import torch

HERE = pathlib.Path(__file__).parent


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj = torch.nn.Linear(6, 4, bias=False)
        self.down_proj = torch.nn.Linear(4, 3, bias=False)

    def forward(self, x):
        return self.down_proj(torch.tanh(self.q_proj(x)))


class Tiny(torch.nn.Module):
    # peft reads both of a model whose adapter says CAUSAL_LM.
    config = types.SimpleNamespace(model_type="tiny", to_dict=dict)

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList([Block()])

    def forward(self, input_ids, **_):
        return self.layers[0](input_ids)

    def prepare_inputs_for_generation(self):
        """Nothing here generates."""


def tiny_model():
    """The same weights every time, without a random generator."""
    model = Tiny()
    with torch.no_grad():
        for i, value in enumerate(model.parameters()):
            value.copy_(torch.linspace(-1, 1 + i, value.numel()).view_as(value))
    return model


def check_adapter():
    from peft import PeftModel
    from safetensors.torch import load_file

    want = load_file(HERE / "adapter" / "forward.safetensors")
    model = PeftModel.from_pretrained(tiny_model(), HERE / "adapter_rust")
    torch.testing.assert_close(model(want["x"]), want["y"], rtol=0, atol=0)
    print("adapter_rust: loads in peft, same outputs")


def check_events():
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(HERE / "events_rust"))
    events.Reload()
    got = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    want = {"reward": [(1, 0.25), (2, 0.5)], "rewards/geo/mean": [(2, -1.0)]}
    assert got == want, got
    print("events_rust: TensorBoard reads", got)


if __name__ == "__main__":
    check_adapter()
    check_events()
