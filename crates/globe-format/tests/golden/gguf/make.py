"""A small Qwen2.5-VL in two GGUF files, and what they stand for.

    python make.py    (gguf 0.19.0, numpy 2.4.6, safetensors 0.8.0)

Weights are random. Names come from the name maps of the `gguf` package; the cuts of the vision
tower (query, key and value apart, two frames of the patch embedding) are those of llama.cpp's
convert_hf_to_gguf.py. Matrices of the language model have several quantized types, and
expected.safetensors holds what the package dequantizes them to, under Hugging Face names.
blocks.gguf has two rows of random blocks of every type that is read, and their values as F32.

The tokenizer is the one of tests/golden/window56.
"""

import json
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from safetensors.numpy import save_file

HERE = Path(__file__).parent
TOKENIZER = HERE.parents[4] / "tests/golden/window56/tokenizer.json"

HIDDEN, FFN, LAYERS, HEADS, KV_HEADS, VOCAB = 32, 64, 2, 2, 1, 405
V_HIDDEN, V_FFN, V_DEPTH, V_HEADS, PATCH = 16, 21, 4, 2, 4
# Cycled over the matrices of the language model.
TYPES = [Type.Q4_0, Type.Q8_0, Type.Q4_1, Type.F16, Type.Q5_0, Type.BF16, Type.Q5_1]
READ = TYPES + [Type.Q4_K, Type.Q5_K, Type.Q6_K]

rng = np.random.default_rng(5)


def shapes():
    """Hugging Face names and shapes."""
    kv = HIDDEN // HEADS * KV_HEADS
    text = {"model.embed_tokens.weight": [VOCAB, HIDDEN], "model.norm.weight": [HIDDEN]}
    for i in range(LAYERS):
        at = f"model.layers.{i}."
        text |= {
            at + "input_layernorm.weight": [HIDDEN],
            at + "post_attention_layernorm.weight": [HIDDEN],
            at + "self_attn.q_proj.weight": [HIDDEN, HIDDEN],
            at + "self_attn.q_proj.bias": [HIDDEN],
            at + "self_attn.k_proj.weight": [kv, HIDDEN],
            at + "self_attn.k_proj.bias": [kv],
            at + "self_attn.v_proj.weight": [kv, HIDDEN],
            at + "self_attn.v_proj.bias": [kv],
            at + "self_attn.o_proj.weight": [HIDDEN, HIDDEN],
            at + "mlp.gate_proj.weight": [FFN, HIDDEN],
            at + "mlp.up_proj.weight": [FFN, HIDDEN],
            at + "mlp.down_proj.weight": [HIDDEN, FFN],
        }
    text["lm_head.weight"] = [VOCAB, HIDDEN]
    merged = 4 * V_HIDDEN
    vision = {"visual.patch_embed.proj.weight": [V_HIDDEN, 3, 2, PATCH, PATCH]}
    for i in range(V_DEPTH):
        at = f"visual.blocks.{i}."
        vision |= {
            at + "norm1.weight": [V_HIDDEN],
            at + "norm2.weight": [V_HIDDEN],
            at + "attn.qkv.weight": [3 * V_HIDDEN, V_HIDDEN],
            at + "attn.qkv.bias": [3 * V_HIDDEN],
            at + "attn.proj.weight": [V_HIDDEN, V_HIDDEN],
            at + "attn.proj.bias": [V_HIDDEN],
            at + "mlp.gate_proj.weight": [V_FFN, V_HIDDEN],
            at + "mlp.gate_proj.bias": [V_FFN],
            at + "mlp.up_proj.weight": [V_FFN, V_HIDDEN],
            at + "mlp.up_proj.bias": [V_FFN],
            at + "mlp.down_proj.weight": [V_HIDDEN, V_FFN],
            at + "mlp.down_proj.bias": [V_HIDDEN],
        }
    vision |= {
        "visual.merger.ln_q.weight": [V_HIDDEN],
        "visual.merger.mlp.0.weight": [merged, merged],
        "visual.merger.mlp.0.bias": [merged],
        "visual.merger.mlp.2.weight": [HIDDEN, merged],
        "visual.merger.mlp.2.bias": [HIDDEN],
    }
    return text, vision


def values(shape):
    return (rng.standard_normal(shape) * 0.1).astype(np.float16).astype(np.float32)


def add(writer, name, data, kind):
    """Adds a tensor and returns the values it stands for."""
    packed = gguf.quants.quantize(data, kind)
    writer.add_tensor(name, packed, raw_dtype=kind)
    return gguf.quants.dequantize(packed, kind)


def stored(names, name):
    base, kind = name.rsplit(".", 1)
    return f"{names.get_name(base)}.{kind}"


def text(expected, tokenizer):
    w = gguf.GGUFWriter(HERE / "text.gguf", "qwen2vl")
    w.add_block_count(LAYERS)
    w.add_context_length(4096)
    w.add_embedding_length(HIDDEN)
    w.add_feed_forward_length(FFN)
    w.add_head_count(HEADS)
    w.add_head_count_kv(KV_HEADS)
    w.add_layer_norm_rms_eps(1e-6)
    w.add_rope_freq_base(1e6)
    w.add_rope_dimension_sections([2, 3, 3, 0])
    added = {token["id"]: token for token in tokenizer["added_tokens"]}
    tokens = {id: token for token, id in tokenizer["model"]["vocab"].items()}
    tokens |= {id: token["content"] for id, token in added.items()}
    kind = lambda id: 1 if id not in added else 3 if added[id]["special"] else 4
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("qwen2")
    w.add_token_list([tokens.get(id, f"[PAD{id}]") for id in range(VOCAB)])
    w.add_token_types([kind(id) if id in tokens else 5 for id in range(VOCAB)])
    w.add_token_merges([" ".join(merge) for merge in tokenizer["model"]["merges"]])
    ids = {token: id for id, token in tokens.items()}
    w.add_eos_token_id(ids["<|im_end|>"])
    w.add_pad_token_id(ids["<|endoftext|>"])
    w.add_bos_token_id(ids["<|endoftext|>"])
    w.add_chat_template("{% for m in messages %}{{ m.role }}{% endfor %}")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2VL, LAYERS)
    n = 0
    for name, shape in shapes()[0].items():
        kind = Type.F32
        if shape[0] == VOCAB:
            kind = Type.F16  # keeps the golden small
        elif len(shape) == 2:
            kind = TYPES[n % len(TYPES)]
            n += 1
        expected[name] = add(w, stored(names, name), values(shape), kind)
    finish(w)


def vision(expected):
    w = gguf.GGUFWriter(HERE / "mmproj.gguf", "clip")
    w.add_clip_has_vision_encoder(True)
    w.add_clip_projector_type(gguf.VisionProjectorType.QWEN25VL)
    w.add_vision_use_silu(True)
    w.add_vision_n_wa_pattern(2)
    w.add_vision_image_size(560)
    w.add_vision_patch_size(PATCH)
    w.add_vision_embedding_length(V_HIDDEN)
    w.add_vision_feed_forward_length(V_FFN)
    w.add_vision_block_count(V_DEPTH)
    w.add_vision_head_count(V_HEADS)
    w.add_vision_projection_dim(HIDDEN)
    w.add_vision_attention_layernorm_eps(1e-6)
    w.add_vision_image_mean([0.48145466, 0.4578275, 0.40821073])
    w.add_vision_image_std([0.26862954, 0.26130258, 0.27577711])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.MMPROJ, 32)
    for name, shape in shapes()[1].items():
        data = values(shape)
        expected[name] = data
        kind = Type.F16 if len(shape) > 1 else Type.F32
        if ".qkv." in name:
            for part, which in zip(np.split(data, 3), "qkv"):
                add(w, stored(names, name.replace("qkv", which)), part, kind)
        elif len(shape) == 5:
            for frame, suffix in enumerate(["", ".1"]):
                part = np.ascontiguousarray(data[:, :, frame])
                add(w, f"v.patch_embd.weight{suffix}", part, kind)
        else:
            add(w, stored(names, name), data, kind)
    finish(w)


def blocks():
    w = gguf.GGUFWriter(HERE / "blocks.gguf", "blocks")
    w.add_custom_alignment(64)
    for kind in READ:
        block, size = gguf.GGML_QUANT_SIZES[kind]
        n = 2 * 256 // block
        raw = rng.integers(0, 256, (n, size), dtype=np.uint8)
        # Scales and minima would be infinite at times: give them small values.
        places = {Type.F16: [0], Type.BF16: [0], Type.Q6_K: [208]}.get(kind, [0, 2])
        if kind in (Type.Q4_0, Type.Q5_0, Type.Q8_0):
            places = [0]
        for at in places:
            scales = (rng.standard_normal(n) * 0.01).astype(np.float16)
            raw[:, at : at + 2] = scales.view(np.uint8).reshape(n, 2)
        raw = raw.reshape(2, -1)
        w.add_tensor(f"{kind.name}", raw, raw_dtype=kind)
        w.add_tensor(f"{kind.name}.values", gguf.quants.dequantize(raw, kind))
    finish(w)


def smallest(data):
    half = data.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), data) else data


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    expected = {}
    text(expected, json.loads(TOKENIZER.read_text()))
    vision(expected)
    blocks()
    save_file({k: smallest(v) for k, v in expected.items()}, HERE / "expected.safetensors")
