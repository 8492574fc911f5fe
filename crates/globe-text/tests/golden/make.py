"""Makes the golden data of globe-text: a small tokenizer and what Python says about it.

Run in this folder with the packages of requirements.txt; rewrites tokenizer.json and golden.json.
The tokenizer has the parts of Qwen2.5's (NFC, the same split rule, byte-level BPE) and a small
vocabulary trained on the texts below. Dates are not compared, since Python prints the real one.
"""

import json
import re
from pathlib import Path

import tokenizers
import transformers
from tokenizers import (
    AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
)
from transformers.utils.chat_template_utils import render_jinja_template

HERE = Path(__file__).parent
PROMPTS = HERE.parent.parent / "prompts"
VERSIONS = dict(re.findall(r"^(\S+)==(\S+)$", (HERE / "requirements.txt").read_text(), re.M))
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|image_pad|>",
]
TEXTS = [
    "", " ", "a", "Hello, world!", "country: France\ncity: Paris", "  two  spaces \n\n\ttab",
    "1234567890 12,5 %", "don't WE'LL", "Zürich São Paulo Kraków Łódź Reykjavík",
    "東京都 서울 Москва القاهرة", "e\u0301 and \u00e9", "🌍🧭 👩‍👩‍👧 ✈️", "<|im_end|>", "a<|image_pad|>b",
    "<|image_pad|><|image_pad|> <|image_pad|>\n", "<|im_start|>user\n<|vision_start|>x",
    "<|image_pad |> <image_pad>", "\u0000\u001f\u007f", "<think>\nReasons.\n</think>\n<answer>",
]
IMAGE = {"type": "image"}


def text(value):
    return {"type": "text", "text": value}


def conversations():
    reason = (PROMPTS / "reason-v1.txt").read_text().rstrip()
    system = {"role": "system", "content": (PROMPTS / "system.txt").read_text().rstrip()}
    return {
        "stock": [system, {"role": "user", "content": [IMAGE, text(reason)]}],
        "no system": [{"role": "user", "content": [IMAGE, text("Where is this?")]}],
        "images": [
            {"role": "user", "content": [IMAGE, text("one"), IMAGE, IMAGE, text("  three  ")]},
        ],
        "turns": [
            system,
            {"role": "user", "content": [text("A banana & <b>.\nNext line.")]},
            {"role": "assistant", "content": "Çà et là: \"quoted\" \\ \t."},
            {"role": "user", "content": [text("stop here")]},
        ],
        "hostile": [{"role": "user", "content": [text("{{ 7*7 }} {% raw %} <|im_end|>\u2028")]}],
    }


def make_tokenizer():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    corpus = TEXTS + [path.read_text() for path in sorted(PROMPTS.glob("*.txt"))]
    corpus = [re.sub(r"<\|.*?\|>", " ", line) for line in corpus]
    trainer = trainers.BpeTrainer(
        vocab_size=600, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(corpus * 2, trainer)
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in SPECIAL])
    return tokenizer


def render(template, chat, **kwargs):
    rendered, _ = render_jinja_template([chat], chat_template=template, **kwargs)
    return rendered[0]


def main():
    found = {"tokenizers": tokenizers.__version__, "transformers": transformers.__version__}
    assert found == VERSIONS, f"requirements.txt asks for {VERSIONS}, found {found}"
    tokenizer = make_tokenizer()
    encoded = [
        {"text": t, "ids": (ids := tokenizer.encode(t).ids),
         "decoded": tokenizer.decode(ids, skip_special_tokens=False),
         "without_special": tokenizer.decode(ids, skip_special_tokens=True)}
        for t in TEXTS
    ]
    rendered, expanded = [], []
    for name, chat in conversations().items():
        for file in ["template.jinja", "stock.jinja", "python.jinja"]:
            template = (HERE / file).read_text()
            out = [render(template, chat, add_generation_prompt=turn, eos_token="<|im_end|>")
                   for turn in (True, False)]
            rendered.append({"chat": name, "template": file, "prompt": out[0], "turns": out[1]})
        prompt = rendered[-2]["prompt"]
        counts = [3 + i for i in range(prompt.count("<|image_pad|>"))]
        # What the Python processor does: repeat the placeholder in the text, then encode.
        repeats = iter(counts)
        long = re.sub(r"<\|image_pad\|>", lambda m: m.group() * next(repeats), prompt)
        expanded.append({"chat": name, "counts": counts, "ids": tokenizer.encode(long).ids})
    tokenizer.save(str(HERE / "tokenizer.json"), pretty=False)
    golden = {"versions": found, "conversations": conversations(), "encoded": encoded,
              "rendered": rendered, "expanded": expanded}
    (HERE / "golden.json").write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n")


main()
