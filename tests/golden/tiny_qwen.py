"""Random Qwen2.5-VL checkpoints and their reference outputs; shared by the three scripts here.

Everything is a function of a `Spec`: one seed, one shape, one way to lay the files out.
"""

import hashlib
import json
import os
import re
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer
from transformers import Qwen2_5_VLProcessor as PublishedProcessor
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.utils import logging as hf_logging
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

warnings.filterwarnings("ignore")
hf_logging.set_verbosity_error()
hf_logging.disable_progress_bar()
torch.set_num_threads(1)  # one summation order, whatever the machine has

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
DTYPE_NAMES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}

# The published vocabulary ends with these, in this order; the first fourteen are "special".
SPECIAL_TOKENS = (
    "<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> <|box_start|> <|box_end|> "
    "<|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|> <|vision_pad|> <|image_pad|> <|video_pad|>"
).split()
PLAIN_ADDED_TOKENS = (
    "<tool_call> </tool_call> <|fim_prefix|> <|fim_middle|> <|fim_suffix|> <|fim_pad|> <|repo_name|> <|file_sep|>"
).split()

# Own wording; renders what the published Qwen2.5-VL template renders for text and images.
CHAT_TEMPLATE = """\
{%- if not messages or messages[0].role != 'system' -%}
{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif -%}
{%- for turn in messages -%}
{{ '<|im_start|>' + turn.role + '\\n' }}
{%- if turn.content is string -%}
{{ turn.content }}
{%- else -%}
{%- for part in turn.content -%}
{%- if part.type == 'image' -%}
{{ '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- elif part.type == 'video' -%}
{{ '<|vision_start|><|video_pad|><|vision_end|>' }}
{%- else -%}
{{ part.text }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{ '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- endif -%}
"""

CORPUS = """\
Where was this photo taken? Look at the road signs, the plants, the soil, the light and the architecture.
Which country is this? Name the country, the region and the nearest city, then give latitude and longitude.
The photograph shows a street with houses, a church and a mountain in the distance. It's near the coast.
I think that it is Brazil, because the bollards aren't like those of Portugal. We'll answer: -23.5, -46.6.
Answer with the coordinates only. The driving side is left, the sun stands in the north, the soil is red.
""" * 3

# Text the tokenizer must split as the reference does: contractions, digits, spaces, newlines, accents,
# decomposed accents (NFC), scripts without spaces, emoji, added tokens inside text.
TOKENIZER_CASES = [
    "",
    " ",
    "Where was this photo taken?",
    "It's 12345.678 km, isn't it?  WE'LL see",
    "  leading and   inner   spaces  ",
    "line one\nline two\r\n\n  indented\tTab\n",
    "S\u00e3o Paulo, K\u00f8benhavn, cafe\u0301, \u1e9b\u0323",
    "\u6771\u4eac\u90fd \u0395\u03bb\u03bb\u03ac\u03b4\u03b1 \u041c\u043e\u0441\u043a\u0432\u0430 \u0939\u093f\u0928\u094d\u0926\u0940",
    "\U0001f30d\U0001f468\u200d\U0001f469\u200d\U0001f467 ok\u00a0nbsp \u00bd \u2167 \u0664\u0662",
    "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>hi<|im_end|>\n",
    "a<tool_call>b</tool_call> <|not_a_token|> <|im_start |>",
    "lat=-23.55,lon=-46.63;(\"quoted\") #tag @x_y {z}",
]


@dataclass
class Spec:
    """One checkpoint: shape, file layout and the prompt its golden is computed for."""

    name: str
    seed: int
    text: dict
    vision: dict
    rope_theta: float = 10000.0
    mrope_section: tuple = (2, 3, 3)
    rms_norm_eps: float = 1e-6
    tied: bool = False
    dtype: str = "f32"  # f32, bf16, f16
    keys: str = "old"  # old: visual.*, model.layers.*; new: model.visual.*, model.language_model.*
    config: str = "nested"  # nested: as saved by transformers 5; flat: as published with 4.4x
    template: str = "jinja"  # jinja: chat_template.jinja; json: chat_template.json; tokenizer: tokenizer_config.json
    processor: str = "preprocessor"  # preprocessor: size dict; legacy: min_pixels and max_pixels; processor: nested file
    n_merges: int = 120
    n_unused_ids: int = 7  # rows of the embedding above the last token, as published checkpoints have
    max_shard_bytes: int = 0  # 0: one file
    min_pixels: int = 3136
    max_pixels: int = 50176
    images: tuple = ()
    prompt: str = "Where was this photo taken?"
    system: str | None = None
    embed_std: float = 0.5
    gain: float = 1.5


class Qwen2_5_VLProcessor(PublishedProcessor):  # the name is saved as processor_class
    """The published processor without its video part, which would need torchvision."""

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None, **kwargs):
        self.image_token = "<|image_pad|>"
        self.video_token = "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        super(PublishedProcessor, self).__init__(image_processor, tokenizer, chat_template=chat_template)


# ---------------------------------------------------------------- tokenizer


def train_tokenizer(n_merges: int) -> Qwen2Tokenizer:
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + n_merges,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(CORPUS.splitlines(), trainer)
    model = json.loads(bpe.to_str())["model"]
    merges = [tuple(m) for m in model["merges"]]
    assert len(model["vocab"]) == 256 + n_merges, len(model["vocab"])
    # `<|endoftext|>` is the class's default token, so it is registered first; the rest follow in order.
    tokenizer = Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=merges,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token=None,
        model_max_length=131072,
        clean_up_tokenization_spaces=False,
    )
    return tokenizer


def full_tokenizer(n_merges: int, folder: Path) -> Qwen2Tokenizer:
    """Trains, then loads through tokenizer.json so that added tokens get the published order of ids."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(n_merges)
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text())
    first = 256 + n_merges
    data["added_tokens"] = [
        {
            "id": first + i,
            "content": content,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": content in SPECIAL_TOKENS,
        }
        for i, content in enumerate(SPECIAL_TOKENS + PLAIN_ADDED_TOKENS)
    ]
    path.write_text(json.dumps(data, ensure_ascii=False))
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, extra_special_tokens=SPECIAL_TOKENS[1:2] + SPECIAL_TOKENS[3:])
    for key in ("is_local", "local_files_only"):
        tokenizer.init_kwargs.pop(key, None)
    tokenizer.save_pretrained(folder)
    for i, content in enumerate(SPECIAL_TOKENS + PLAIN_ADDED_TOKENS):
        assert tokenizer.convert_tokens_to_ids(content) == first + i, content
    return tokenizer


# ---------------------------------------------------------------- weights


def make_config(spec: Spec, tokenizer) -> Qwen2_5_VLConfig:
    ids = {t: tokenizer.convert_tokens_to_ids(t) for t in SPECIAL_TOKENS}
    text = dict(
        vocab_size=len(tokenizer) + spec.n_unused_ids,
        rms_norm_eps=spec.rms_norm_eps,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": spec.rope_theta,
            "mrope_section": list(spec.mrope_section),
        },
        max_position_embeddings=4096,
        bos_token_id=ids["<|endoftext|>"],
        eos_token_id=ids["<|im_end|>"],
        tie_word_embeddings=spec.tied,
        **spec.text,
    )
    vision = dict(out_hidden_size=spec.text["hidden_size"], **spec.vision)
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        tie_word_embeddings=spec.tied,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )


def fill_weights(model, spec: Spec, seed: int) -> None:
    """Seeded by name, so that a tensor does not depend on the order of the others."""
    for name, parameter in model.named_parameters():
        digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
        rng = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8], "little")))
        noise = torch.from_numpy(rng.standard_normal(tuple(parameter.shape), dtype=np.float32))
        if re.search(r"norm\d?\.weight$|layernorm\.weight$|ln_q\.weight$", name):
            value = 1.0 + 0.2 * noise
        elif name.endswith("bias"):
            value = (0.4 if re.search(r"[qk]_proj|qkv", name) else 0.1) * noise
        elif "embed_tokens" in name:
            value = spec.embed_std * noise
        else:
            fan_in = parameter[0].numel()
            std = 1.0 if "lm_head" in name or "patch_embed" in name else spec.gain
            value = std / fan_in**0.5 * noise
        parameter.data.copy_(value.to(DTYPES[spec.dtype]))


def new_key(name: str) -> str:
    """Key of the file layout written since 4.52 from the published one."""
    name = re.sub(r"^visual\.", "model.visual.", name)
    return re.sub(r"^model\.(?!visual\.|language_model\.)", "model.language_model.", name)


def write_weights(spec: Spec, model, folder: Path) -> None:
    for old in folder.glob("model*.safetensors*"):
        old.unlink()
    shard = spec.max_shard_bytes or "5GB"
    model.save_pretrained(folder, max_shard_size=shard)
    if spec.keys == "old":
        return  # transformers 5 saves the published names
    assert not spec.max_shard_bytes, "renaming shards is not needed by any spec"
    path = folder / "model.safetensors"
    save_file({new_key(k): v for k, v in load_file(path).items()}, path, metadata={"format": "pt"})


def flat_config(spec: Spec, config: Qwen2_5_VLConfig, tokenizer) -> dict:
    """config.json as the published checkpoints have it (transformers 4.41 to 4.51)."""
    text, vision = config.text_config, config.vision_config
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "attention_dropout": 0.0,
        "bos_token_id": text.bos_token_id,
        "eos_token_id": text.eos_token_id,
        "vision_start_token_id": config.vision_start_token_id,
        "vision_end_token_id": config.vision_end_token_id,
        "vision_token_id": tokenizer.convert_tokens_to_ids("<|vision_pad|>"),
        "image_token_id": config.image_token_id,
        "video_token_id": config.video_token_id,
        "hidden_act": "silu",
        "hidden_size": text.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": text.intermediate_size,
        "max_position_embeddings": text.max_position_embeddings,
        "max_window_layers": text.num_hidden_layers,
        "model_type": "qwen2_5_vl",
        "num_attention_heads": text.num_attention_heads,
        "num_hidden_layers": text.num_hidden_layers,
        "num_key_value_heads": text.num_key_value_heads,
        "rms_norm_eps": text.rms_norm_eps,
        "rope_theta": spec.rope_theta,
        "sliding_window": 32768,
        "tie_word_embeddings": spec.tied,
        "torch_dtype": DTYPE_NAMES[spec.dtype],
        "transformers_version": "4.41.2",
        "use_cache": True,
        "use_sliding_window": False,
        "vision_config": {
            "depth": vision.depth,
            "hidden_act": "silu",
            "hidden_size": vision.hidden_size,
            "intermediate_size": vision.intermediate_size,
            "num_heads": vision.num_heads,
            "in_chans": 3,
            "out_hidden_size": vision.out_hidden_size,
            "patch_size": vision.patch_size,
            "spatial_merge_size": vision.spatial_merge_size,
            "spatial_patch_size": vision.patch_size,
            "window_size": vision.window_size,
            "fullatt_block_indexes": list(vision.fullatt_block_indexes),
            "tokens_per_second": 2,
            "temporal_patch_size": vision.temporal_patch_size,
        },
        "rope_scaling": {"type": "mrope", "mrope_section": list(spec.mrope_section)},
        "vocab_size": text.vocab_size,
    }


def write_json(path: Path, value) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_template(spec: Spec, tokenizer, folder: Path) -> None:
    if spec.template == "jinja":
        (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    elif spec.template == "json":
        write_json(folder / "chat_template.json", {"chat_template": CHAT_TEMPLATE})
    else:
        path = folder / "tokenizer_config.json"
        write_json(path, {**json.loads(path.read_text()), "chat_template": CHAT_TEMPLATE})


def write_processor(spec: Spec, tokenizer, folder: Path) -> None:
    vision = {k: spec.vision[k] for k in ("patch_size", "temporal_patch_size") if k in spec.vision}
    merge = spec.vision.get("spatial_merge_size", 2)
    image = Qwen2VLImageProcessorPil(
        min_pixels=spec.min_pixels, max_pixels=spec.max_pixels, merge_size=merge, **vision
    )
    if spec.processor == "processor":
        tokenizer_config = (folder / "tokenizer_config.json").read_bytes()
        Qwen2_5_VLProcessor(image, tokenizer).save_pretrained(folder)
        (folder / "tokenizer_config.json").write_bytes(tokenizer_config)
    elif spec.processor == "preprocessor":
        image.save_pretrained(folder)
    else:
        legacy = {
            "min_pixels": spec.min_pixels,
            "max_pixels": spec.max_pixels,
            "patch_size": image.patch_size,
            "temporal_patch_size": image.temporal_patch_size,
            "merge_size": image.merge_size,
            "image_mean": list(image.image_mean),
            "image_std": list(image.image_std),
            "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": "Qwen2_5_VLProcessor",
        }
        write_json(folder / "preprocessor_config.json", legacy)


def write_checkpoint(spec: Spec, folder: Path, seed: int) -> None:
    """Writes every file of the checkpoint except the goldens."""
    shutil.rmtree(folder, ignore_errors=True)
    tokenizer = full_tokenizer(spec.n_merges, folder)
    config = make_config(spec, tokenizer)
    model = Qwen2_5_VLForConditionalGeneration(config).to(DTYPES[spec.dtype])
    fill_weights(model, spec, seed)
    write_weights(spec, model, folder)
    if spec.config == "flat":
        write_json(folder / "config.json", flat_config(spec, config, tokenizer))
    ids = [tokenizer.convert_tokens_to_ids(t) for t in ("<|im_end|>", "<|endoftext|>")]
    generation = {
        "bos_token_id": ids[1],
        "pad_token_id": ids[1],
        "do_sample": False,
        "eos_token_id": ids,
        "transformers_version": "5.23.0",
    }
    write_json(folder / "generation_config.json", generation)
    write_processor(spec, tokenizer, folder)
    write_template(spec, tokenizer, folder)


# ---------------------------------------------------------------- reference


@dataclass
class Loaded:
    model: Qwen2_5_VLForConditionalGeneration
    processor: Qwen2_5_VLProcessor


def load(folder: Path, attention: str = "eager", dtype=torch.float32) -> Loaded:
    """Loads a checkpoint folder; weights of any type are widened to `dtype`."""
    from transformers import AutoImageProcessor, AutoTokenizer

    folder = Path(folder)
    model, info = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        folder, dtype=dtype, attn_implementation=attention, output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    tokenizer = AutoTokenizer.from_pretrained(folder)
    image = AutoImageProcessor.from_pretrained(folder, backend="pil")
    assert isinstance(image, Qwen2VLImageProcessorPil), type(image)
    return Loaded(model.eval(), Qwen2_5_VLProcessor(image, tokenizer, chat_template=read_template(folder)))


def read_template(folder: Path) -> str:
    """In the order of transformers' preference; ours if the checkpoint has none."""
    if (folder / "chat_template.jinja").exists():
        return (folder / "chat_template.jinja").read_text()
    if (folder / "chat_template.json").exists():
        return json.loads((folder / "chat_template.json").read_text())["chat_template"]
    return json.loads((folder / "tokenizer_config.json").read_text()).get("chat_template", CHAT_TEMPLATE)


def make_inputs(loaded: Loaded, images: list, text: str, system: str | None):
    messages = [{"role": "system", "content": system}] if system is not None else []
    parts = [{"type": "image"} for _ in images] + [{"type": "text", "text": text}]
    messages.append({"role": "user", "content": parts})
    prompt = loaded.processor.tokenizer.apply_chat_template(
        messages, chat_template=loaded.processor.chat_template, tokenize=False, add_generation_prompt=True
    )
    inputs = loaded.processor(text=[prompt], images=images or None, return_tensors="pt")
    return prompt, inputs


@torch.no_grad()
def greedy(model, inputs, n_tokens: int):
    """Argmax loop with a cache and without a stop token: ids, logits of every step."""
    model.model.rope_deltas = None
    out = model(**inputs, use_cache=True)
    cache = out.past_key_values
    steps = [out.logits[0, -1]]
    ids = [int(steps[-1].argmax())]
    for _ in range(n_tokens - 1):
        out = model(input_ids=torch.tensor([ids[-1:]]), past_key_values=cache, use_cache=True)
        steps.append(out.logits[0, -1])
        ids.append(int(steps[-1].argmax()))
    return ids, torch.stack(steps)


def extend(inputs, ids: list):
    """The prompt with generated ids appended, for one forward pass without a cache."""
    tail = torch.tensor([ids])
    out = {**inputs, "input_ids": torch.cat([inputs["input_ids"], tail], 1)}
    out["attention_mask"] = torch.ones_like(out["input_ids"])
    out["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(tail)], 1)
    return out


@torch.no_grad()
def all_logits(model, inputs):
    model.model.rope_deltas = None
    return model(**inputs, use_cache=False).logits[0]


def logits_object(loaded: Loaded, images: list, text: str, system: str | None, n_tokens: int) -> dict:
    """What `globe logits` prints."""
    _, inputs = make_inputs(loaded, images, text, system)
    ids, steps = greedy(loaded.model, inputs, n_tokens)
    grid = inputs["image_grid_thw"].tolist() if images else []
    return {
        "input_ids": inputs["input_ids"][0].tolist(),
        "image_grid_thw": grid[0] if len(grid) == 1 else grid,
        "last_logits": steps[0].tolist(),
        "greedy": ids,
    }


@torch.no_grad()
def stages(loaded: Loaded, inputs) -> dict:
    """Intermediate results of the prompt's forward pass, by hooks."""
    model, got, hooks = loaded.model, {}, []

    def keep(name, pick=lambda t: t):
        def hook(_module, _args, output):
            value = output[0] if isinstance(output, tuple) else output
            got[name] = pick(value).clone()

        return hook

    visual, text = model.model.visual, model.model.language_model
    if "pixel_values" in inputs:
        hooks.append(visual.patch_embed.register_forward_hook(keep("vision.patch_embed")))
        for i, block in enumerate(visual.blocks):
            hooks.append(block.register_forward_hook(keep(f"vision.block.{i}")))
        hooks.append(visual.register_forward_hook(lambda _m, _a, o: got.update({"vision.merger": o.pooler_output})))
    for i, layer in enumerate(text.layers):
        hooks.append(layer.register_forward_hook(keep(f"text.layer.{i}.last", lambda t: t[0, -1])))
    hooks.append(text.norm.register_forward_hook(keep("text.norm.last", lambda t: t[0, -1])))
    got["prompt_logits"] = all_logits(model, inputs)
    for hook in hooks:
        hook.remove()
    return got


def window_tables(loaded: Loaded, grid):
    v = loaded.model.config.vision_config
    index, cu = get_vision_window_index(grid, v.spatial_merge_size, v.window_size, v.patch_size)
    return index, cu, get_vision_position_ids(grid, v.spatial_merge_size)


def resized_rgb(loaded: Loaded, image) -> np.ndarray:
    """The image after conversion and resize, before rescaling: u8 [height, width, 3]."""
    p = loaded.processor.image_processor
    array = p.process_image(image, do_convert_rgb=True)
    if p.do_resize:
        array = p.resize(array, size=p.size, resample=p.resample, factor=p.patch_size * p.merge_size)
    return np.ascontiguousarray(np.moveaxis(array, 0, -1))


def torchvision_like_rgb(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """What the torchvision backend's resize does to u8 on CPU, without torchvision."""
    x = torch.from_numpy(np.moveaxis(image, -1, 0).copy())[None]
    y = F.interpolate(x, size=(height, width), mode="bicubic", antialias=True, align_corners=False)
    return np.moveaxis(y[0].numpy(), 0, -1)


# ---------------------------------------------------------------- images


def noise_field(rng, height: int, width: int, cell: int) -> np.ndarray:
    """Smooth noise in 0..1: a coarse random grid, enlarged."""
    coarse = rng.integers(0, 256, (height // cell + 2, width // cell + 2), dtype=np.uint8)
    grown = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(grown, dtype=np.float64) / 255


def drawing(seed: int, width: int, height: int) -> Image.Image:
    """Gradient, noise and shapes."""
    rng = np.random.Generator(np.random.PCG64(seed))
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    planes = []
    for _ in range(3):
        a, b, c = rng.uniform(-1, 1, 3)
        plane = 0.5 + 0.35 * (a * x / width + b * y / height) + 0.3 * c * (noise_field(rng, height, width, 9) - 0.5)
        planes.append(plane * 255 + rng.normal(0, 6, plane.shape))
    image = Image.fromarray(np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for _ in range(4):
        x0, y0 = int(rng.integers(0, width - 8)), int(rng.integers(0, height - 8))
        x1, y1 = x0 + int(rng.integers(6, width // 2)), y0 + int(rng.integers(6, height // 2))
        color = tuple(int(v) for v in rng.integers(0, 256, 3))
        shape = [pen.rectangle, pen.ellipse, pen.line][int(rng.integers(0, 3))]
        shape([x0, y0, x1, y1], fill=color)
    return image


def photo(seed: int, width: int, height: int) -> Image.Image:
    """Sky, hills, ground and grain: smooth like a photograph."""
    rng = np.random.Generator(np.random.PCG64(seed))
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    ridge = height * (0.4 + 0.18 * noise_field(rng, 1, width, 24)[0] + 0.05 * noise_field(rng, 1, width, 6)[0])
    sky = np.stack([120 + 90 * y / height, 160 + 60 * y / height, 225 - 20 * y / height], -1)
    cloud = np.clip(noise_field(rng, height, width, 30) - 0.5, 0, 1)[..., None] * 160
    field_ = noise_field(rng, height, width, 5)[..., None]
    land = np.stack([70 + 60 * y / height, 95 + 30 * y / height, 45 + 20 * y / height], -1) * (0.6 + 0.7 * field_)
    picture = np.where((y > ridge[None])[..., None], land, sky + cloud)
    road = np.abs(x - width * 0.55) < (y - height * 0.55) * 0.35
    picture = np.where(road[..., None], 105 + 30 * field_, picture) + rng.normal(0, 3, picture.shape)
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
