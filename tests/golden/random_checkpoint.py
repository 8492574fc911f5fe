"""Writes a random checkpoint with a randomly drawn shape and file layout, and an image to try it with.

    python random_checkpoint.py --out DIR --seed N [--shape tiny|small|medium] [--set KEY=JSON ...]

Everything follows from the seed. DIR also gets `image.png` and `spec.json` (what was drawn); `--set` fixes
a field of the spec, or of its text or vision part: `--set dtype='"f16"' --set vision.window_size=56`.
Compare with: python check_one.py DIR DIR/image.png "Where was this photo taken?"
"""

import argparse
import json
import random
from dataclasses import asdict
from pathlib import Path

from tiny_qwen import Spec, drawing, photo, write_checkpoint, write_json

# upper limits: text hidden, text layers, vision hidden, vision blocks, image side
SHAPES = {"tiny": (128, 2, 32, 3, 150), "small": (384, 4, 96, 6, 260), "medium": (1024, 8, 320, 12, 420)}


def draw_sections(rng: random.Random, half: int) -> tuple:
    """Three positive parts of half a head, often in the published proportion 2:3:3."""
    if half % 8 == 0 and rng.random() < 0.5:
        return (half // 4, half * 3 // 8, half * 3 // 8)
    first, second = sorted(rng.sample(range(1, half), 2))
    return (first, second - first, half - second)


def draw_text(rng: random.Random, max_hidden: int, max_layers: int) -> dict:
    head_dim = rng.choice([d for d in (16, 24, 32, 48, 64, 80, 96, 128) if 2 * d <= max(max_hidden, 256)])
    n_heads = rng.randint(1, max(1, min(16, max_hidden // head_dim)))
    n_kv_heads = rng.choice([n for n in range(1, n_heads + 1) if n_heads % n == 0])
    hidden = n_heads * head_dim
    return dict(
        hidden_size=hidden,
        intermediate_size=rng.randint(hidden // 2 + 1, 3 * hidden),
        num_hidden_layers=rng.randint(1, max_layers),
        num_attention_heads=n_heads,
        num_key_value_heads=n_kv_heads,
    )


def draw_vision(rng: random.Random, max_hidden: int, max_depth: int) -> dict:
    head_dim = rng.choice([d for d in (8, 16, 20, 24, 32, 40, 64, 80) if d <= max_hidden])  # 4 divides it
    n_heads = rng.randint(1, max(1, max_hidden // head_dim))
    hidden, depth = n_heads * head_dim, rng.randint(1, max_depth)
    return dict(
        depth=depth,
        hidden_size=hidden,
        intermediate_size=rng.randint(hidden // 2 + 1, 3 * hidden),
        num_heads=n_heads,
        window_size=rng.choice([56, 112]),
        fullatt_block_indexes=sorted(rng.sample(range(depth), rng.randint(0, depth))),
    )


def draw_spec(seed: int, shape: str) -> Spec:
    rng = random.Random(f"{shape}:{seed}")
    hidden, layers, vision_hidden, depth, _ = SHAPES[shape]
    text = draw_text(rng, hidden, layers)
    head_dim = text["hidden_size"] // text["num_attention_heads"]
    keys = rng.choice(["old", "new"])
    max_pixels = rng.choice([12544, 50176, 200704])
    tied = rng.random() < 0.5
    return Spec(
        name=f"random-{shape}-{seed}",
        seed=seed,
        text=text,
        vision=draw_vision(rng, vision_hidden, depth),
        rope_theta=rng.choice([500.0, 10000.0, 1000000.0]),
        mrope_section=draw_sections(rng, head_dim // 2),
        rms_norm_eps=rng.choice([1e-6, 1e-5]),
        tied=tied,
        embed_std=0.15 if tied else 0.5,  # small, or a tied head only repeats its input
        dtype=rng.choice(["f32", "bf16", "f16"]),
        keys=keys,
        config=rng.choice(["nested", "flat"]),
        template=rng.choice(["jinja", "json", "tokenizer"]),
        processor=rng.choice(["preprocessor", "legacy", "processor"]),
        n_merges=rng.choice([60, 120, 200]),
        n_unused_ids=rng.randint(0, 40),
        max_shard_bytes=rng.choice([0, 0, 300_000]) if keys == "old" else 0,
        min_pixels=rng.choice([3136, 12544]),
        max_pixels=max_pixels,
        gain=rng.choice([1.2, 1.5]),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--set", dest="fixed", action="append", default=[], metavar="KEY=JSON")
    args = parser.parse_args()
    spec = draw_spec(args.seed, args.shape)
    for item in args.fixed:
        key, value = item.split("=", 1)
        part, _, field = key.rpartition(".")
        if part:
            getattr(spec, part)[field] = json.loads(value)
        else:
            setattr(spec, field, json.loads(value))
    write_checkpoint(spec, args.out, args.seed)
    rng = random.Random(args.seed)
    side = SHAPES[args.shape][-1]
    width, height = rng.randint(20, side), rng.randint(20, side)
    rng.choice([drawing, photo])(args.seed, width, height).save(args.out / "image.png")
    write_json(args.out / "spec.json", asdict(spec))
    size = sum(f.stat().st_size for f in args.out.iterdir())
    print(args.out, size, "bytes,", json.dumps(asdict(spec)))


if __name__ == "__main__":
    main()
