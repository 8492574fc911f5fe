"""Makes the files of this folder that are neither scripts nor notes nor real photos: images, checkpoints, goldens, resize.json.

    python make.py [NAME ...]      all checkpoints, or only the named ones
    python make.py --check         makes everything in a temporary folder and compares bytes
"""

import argparse
import filecmp
import sys
import tempfile

from tiny_qwen import *  # noqa: F403, shared vocabulary of three scripts
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

HERE = Path(__file__).resolve().parent
N_TOKENS = 32
MIN_MARGIN = 2e-3  # top-1 minus top-2, in units of max |logit|; far above f32 rounding
MIN_DISTINCT = 10  # different ids among the greedy tokens
MAX_FULL_PIXELS = 120_000  # bytes of pixel_values that are stored whole
TEXT_ONLY = "Name a country, it's far away."

IMAGES = {
    "plain_56x84.png": lambda: drawing(11, 56, 84),
    "alpha_100x76.png": lambda: with_alpha(drawing(12, 100, 76)),
    "wide_140x84.png": lambda: drawing(13, 140, 84),
    "odd_187x131.png": lambda: drawing(14, 187, 131),
    "small_40x30.png": lambda: drawing(15, 40, 30),
    "grey_200x120.png": lambda: drawing(16, 200, 120).convert("L"),
    "deep_196x112.png": lambda: drawing(17, 196, 112),
}

SPECS = [
    Spec(
        "untied",
        seed=104,
        text=dict(
            hidden_size=112, intermediate_size=85, num_hidden_layers=1, num_attention_heads=7, num_key_value_heads=1
        ),
        vision=dict(
            depth=2, hidden_size=16, intermediate_size=43, num_heads=1, window_size=112, fullatt_block_indexes=[1]
        ),
        rope_theta=1000.0,
        keys="new",
        images=("plain_56x84.png",),
    ),
    Spec(
        "tied",
        seed=207,
        text=dict(
            hidden_size=96, intermediate_size=172, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2
        ),
        vision=dict(
            depth=2, hidden_size=32, intermediate_size=53, num_heads=2, window_size=112, fullatt_block_indexes=[0]
        ),
        mrope_section=(4, 2, 2),
        rope_theta=500.0,
        tied=True,
        dtype="bf16",
        config="flat",
        template="json",
        processor="legacy",
        n_merges=150,
        images=("alpha_100x76.png",),
        prompt="S\u00e3o Paulo or Lisboa?  It's 1 of 2:\n\n- caf\u00e9 \u6771\u4eac",
    ),
    Spec(
        "window56",
        seed=301,
        text=dict(
            hidden_size=48, intermediate_size=101, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=3
        ),
        vision=dict(
            depth=5, hidden_size=32, intermediate_size=51, num_heads=2, window_size=56, fullatt_block_indexes=[1, 4]
        ),
        mrope_section=(1, 2, 5),
        dtype="f16",
        keys="new",
        template="tokenizer",
        processor="processor",
        images=("wide_140x84.png",),
    ),
    Spec(
        "window112",
        seed=401,
        text=dict(
            hidden_size=64, intermediate_size=90, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
        ),
        vision=dict(
            depth=3, hidden_size=40, intermediate_size=171, num_heads=2, window_size=112, fullatt_block_indexes=[2]
        ),
        rms_norm_eps=1e-5,
        rope_theta=2000.0,
        dtype="bf16",
        max_shard_bytes=200_000,
        images=("odd_187x131.png",),
        system="",
    ),
    Spec(
        "two_images",
        seed=501,
        text=dict(
            hidden_size=224, intermediate_size=43, num_hidden_layers=2, num_attention_heads=14, num_key_value_heads=2
        ),
        vision=dict(
            depth=2, hidden_size=16, intermediate_size=37, num_heads=1, window_size=56, fullatt_block_indexes=[1]
        ),
        mrope_section=(2, 2, 4),
        rope_theta=1000.0,
        tied=True,
        dtype="bf16",
        processor="processor",
        n_merges=100,
        max_pixels=12544,
        images=("small_40x30.png", "grey_200x120.png"),
        prompt="Were both photos taken in the same country?",
    ),
    Spec(
        "deep",
        seed=606,
        text=dict(
            hidden_size=64, intermediate_size=107, num_hidden_layers=6, num_attention_heads=2, num_key_value_heads=1
        ),
        vision=dict(
            depth=4, hidden_size=32, intermediate_size=45, num_heads=2, window_size=112, fullatt_block_indexes=[0, 3]
        ),
        mrope_section=(4, 6, 6),
        rope_theta=1000000.0,
        dtype="bf16",
        keys="new",
        config="flat",
        template="tokenizer",
        processor="legacy",
        n_merges=200,
        images=("deep_196x112.png",),
        system="You are a geographer. Answer with the coordinates only.",
        gain=1.2,
    ),
    Spec(
        "head128",
        seed=701,
        text=dict(
            hidden_size=256, intermediate_size=40, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1
        ),
        vision=dict(
            depth=2, hidden_size=16, intermediate_size=37, num_heads=2, window_size=112, fullatt_block_indexes=[1]
        ),
        mrope_section=(16, 24, 24),
        rope_theta=1000000.0,
        tied=True,
        dtype="bf16",
        config="flat",
        template="json",
        processor="processor",
        max_pixels=31360,
        images=("photo.jpg",),
        embed_std=0.12,  # small, or the tied head only repeats its input
        gain=1.8,
    ),
]


def with_alpha(image: Image.Image) -> Image.Image:
    """A ramp of transparency, so that compositing on white shows."""
    ramp = np.linspace(0, 255, image.width).round().astype(np.uint8)
    image.putalpha(Image.fromarray(np.tile(ramp, (image.height, 1))))
    return image


def make_images(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in IMAGES.items():
        draw().save(folder / name, optimize=True)
    photo(19, 240, 180).save(folder / "photo.jpg", quality=88, subsampling="4:2:0")


def relative(a, b) -> float:
    """Largest difference in units of the largest value."""
    return float((a - b).abs().max() / b.abs().max())


def margins(steps) -> torch.Tensor:
    top = steps.topk(2, -1).values
    return (top[:, 0] - top[:, 1]) / steps.abs().amax(-1)


@torch.no_grad()
def sensitivity(loaded: Loaded, inputs, got: dict) -> dict:
    """How far the last logits move when one rule is broken; a golden that does not move tests nothing."""
    model, config = loaded.model, loaded.model.config
    right = got["prompt_logits"][-1]
    out = {"image_inverted": relative(all_logits(model, {**inputs, "pixel_values": -inputs["pixel_values"]})[-1], right)}

    ids, grid = inputs["input_ids"], inputs["image_grid_thw"]
    positions, _ = model.model.get_rope_index(ids, inputs["mm_token_type_ids"], image_grid_thw=grid)
    plain = torch.arange(ids.shape[1]).view(1, 1, -1).expand(3, 1, -1)
    for name, wrong in (("positions_1d", plain), ("positions_hw_swapped", positions[[0, 2, 1]])):
        out[name] = relative(model(**inputs, position_ids=wrong).logits[0, -1], right)

    visual = model.model.visual
    full = visual.fullatt_block_indexes
    visual.fullatt_block_indexes = list(range(config.vision_config.depth))
    out["windows_ignored"] = relative(all_logits(model, inputs)[-1], right)
    visual.fullatt_block_indexes = full
    return out


def attempt(spec: Spec, images: list, folder: Path, seed: int):
    """Writes the checkpoint for one seed; the reason to reject it, or its outputs."""
    write_checkpoint(spec, folder, seed)
    loaded = load(folder)
    prompt, inputs = make_inputs(loaded, images, spec.prompt, spec.system)
    _, text_inputs = make_inputs(loaded, [], TEXT_ONLY, None)
    runs = []
    for run_inputs in (inputs, text_inputs):
        ids, steps = greedy(loaded.model, run_inputs, N_TOKENS)
        if len(set(ids)) < MIN_DISTINCT:
            return f"{len(set(ids))} distinct tokens", None
        if margins(steps).min() < MIN_MARGIN:
            return f"margin {margins(steps).min():.1e}", None
        # The cache must not change anything: one pass over prompt and answer gives the same tokens.
        again = all_logits(loaded.model, extend(run_inputs, ids[:-1]))[-N_TOKENS:]
        assert again.argmax(-1).tolist() == ids and relative(again, steps) < 1e-4
        generated = loaded.model.generate(
            **run_inputs, max_new_tokens=N_TOKENS, do_sample=False, eos_token_id=loaded.model.config.text_config.vocab_size
        )
        assert generated[0, -N_TOKENS:].tolist() == ids, "generate() disagrees"
        runs.append((run_inputs, ids, steps))
    return None, (loaded, prompt, runs)


def golden(spec: Spec, images: list, folder: Path) -> None:
    for seed in range(spec.seed, spec.seed + 100):
        reason, result = attempt(spec, images, folder, seed)
        if reason is None:
            break
        print(f"  seed {seed}: {reason}")
    else:
        raise SystemExit(f"{spec.name}: no seed works")
    loaded, prompt, ((inputs, ids, steps), (text_inputs, text_ids, text_steps)) = result
    got = stages(loaded, inputs)
    grid = inputs["image_grid_thw"]
    positions, delta = loaded.model.model.get_rope_index(
        inputs["input_ids"], inputs["mm_token_type_ids"], image_grid_thw=grid
    )
    window_index, cu_windows, patch_positions = window_tables(loaded, grid)
    pixels = inputs["pixel_values"]
    whole = pixels.numel() * 4 <= MAX_FULL_PIXELS

    noise = {}
    for name, other in (("sdpa", load(folder, "sdpa")), ("f64", load(folder, "eager", torch.float64))):
        cast = {k: v.double() if name == "f64" and v.is_floating_point() else v for k, v in inputs.items()}
        other_ids, other_steps = greedy(other.model, cast, N_TOKENS)
        assert other_ids == ids, name
        noise[name] = relative(other_steps, steps.to(other_steps.dtype))

    i32 = lambda t: torch.as_tensor(t, dtype=torch.int32).contiguous()
    tensors = {
        "input_ids": i32(inputs["input_ids"][0]),
        "image_grid_thw": i32(grid),
        "greedy": i32(ids),
        "last_logits": steps[0],
        "last_step_logits": steps[-1],
        "position_ids": i32(positions[:, 0]),
        "rope_delta": i32(delta.view(-1)),
        "vision.window_index": i32(window_index),
        "vision.cu_window_seqlens": i32(cu_windows),
        "vision.position_ids": i32(patch_positions),
        "text_only.input_ids": i32(text_inputs["input_ids"][0]),
        "text_only.greedy": i32(text_ids),
        "text_only.last_logits": text_steps[0],
        "pixel_values" if whole else "pixel_values.first_last": pixels if whole else pixels[[0, -1]],
        **{k: v for k, v in got.items() if k != "prompt_logits"},
    }
    resize_difference = []
    for i, image in enumerate(images):
        rgb = resized_rgb(loaded, image)
        tensors[f"resized_rgb.{i}"] = torch.from_numpy(rgb)
        source = loaded.processor.image_processor.process_image(image, do_convert_rgb=True)
        other = torchvision_like_rgb(np.moveaxis(source, 0, -1), *rgb.shape[:2])
        resize_difference.append(int(np.abs(other.astype(int) - rgb.astype(int)).max()))
    save_file({k: v.contiguous() for k, v in sorted(tensors.items())}, folder / "golden.safetensors")

    tokenizer = loaded.processor.tokenizer
    round3 = lambda d: {k: float(f"{v:.3g}") for k, v in d.items()}
    write_json(
        folder / "golden.json",
        {
            "name": spec.name,
            "seed": seed,
            "images": [f"images/{name}" for name in spec.images],
            "prompt": spec.prompt,
            "system": spec.system,
            "rendered": prompt,
            "greedy_text": tokenizer.decode(ids, skip_special_tokens=True),
            "text_only_prompt": TEXT_ONLY,
            "weights": spec.dtype,
            "keys": spec.keys,
            "config": spec.config,
            "chat_template": spec.template,
            "preprocessor": spec.processor,
            "image_processor": type(loaded.processor.image_processor).__name__,
            "pixel_values_sha256": hashlib.sha256(pixels.numpy().tobytes()).hexdigest(),
            "torchvision_resize_max_difference": resize_difference,
            "min_margin": float(f"{min(margins(steps).min(), margins(text_steps).min()):.3g}"),
            "reference_noise": round3(noise),
            "sensitivity": round3(sensitivity(loaded, inputs, got)),
            "tokenizer_cases": [
                {"text": t, "ids": tokenizer(t)["input_ids"]} for t in TOKENIZER_CASES
            ],
        },
    )


def make_resize_table(path: Path) -> None:
    """smart_resize of (height, width, factor, min_pixels, max_pixels), with halves that round to even."""
    rows = []
    for factor, lowest, highest in ((28, 3136, 1003520), (28, 3136, 12845056), (28, 200704, 401408), (14, 3136, 50176)):
        for h, w in (
            [(14, 14), (42, 42), (70, 98), (98, 126), (126, 154), (1, 200), (13, 2000), (28, 28), (56, 56), (55, 57)]
            + [(480, 640), (1080, 1920), (4032, 3024), (3000, 4000), (333, 777), (224, 224), (1003, 1001), (27, 5000)]
        ):
            rows.append([h, w, factor, lowest, highest, *smart_resize(h, w, factor, lowest, highest)])
    head = '{"columns": ["height", "width", "factor", "min_pixels", "max_pixels", "out_height", "out_width"], "rows": [\n'
    path.write_text(head + ",\n".join(json.dumps(r) for r in rows) + "\n]}\n")


def make_all(out: Path, names: list) -> None:
    make_images(out / "images")
    make_resize_table(out / "resize.json")
    for spec in SPECS:
        if names and spec.name not in names:
            continue
        images = [Image.open(out / "images" / name) for name in spec.images]
        golden(spec, images, out / spec.name)
        size = sum(f.stat().st_size for f in (out / spec.name).iterdir())
        facts = json.loads((out / spec.name / "golden.json").read_text())
        print(spec.name, size, *(f"{k}={facts[k]}" for k in ("seed", "min_margin", "reference_noise", "sensitivity")))
        assert size <= 1_000_000, f"{spec.name}: {size} bytes"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    if not args.check:
        return make_all(HERE, args.names)
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary)
        make_all(out, args.names)
        made = sorted(p.relative_to(out) for p in out.rglob("*") if p.is_file())
        differ = [p for p in made if not filecmp.cmp(out / p, HERE / p, shallow=False)]
        print(f"{len(made)} files made, {len(differ)} differ", *differ)
        sys.exit(bool(differ))


if __name__ == "__main__":
    main()
