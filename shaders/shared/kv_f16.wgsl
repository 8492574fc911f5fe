// Keys and values as 16-bit floats, two in a word; no f16 in the shader is needed.

const PER_WORD: u32 = 2u; // numbers in a word
const HIGHEST_F16: vec2<f32> = vec2(65504.0);

alias KvWord = u32;
alias KvQuad = vec2<u32>; // four numbers

fn kv_word(numbers: vec2<f32>) -> KvWord {
    return pack2x16float(clamp(numbers, -HIGHEST_F16, HIGHEST_F16));
}

fn kv_values(quad: KvQuad) -> vec4<f32> {
    return vec4(unpack2x16float(quad.x), unpack2x16float(quad.y));
}
