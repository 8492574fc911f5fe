// Keys and values as 32-bit floats.

const PER_WORD: u32 = 1u; // numbers in a word

alias KvWord = f32;
alias KvQuad = vec4<f32>; // four numbers

fn kv_word(numbers: vec2<f32>) -> KvWord {
    return numbers.x;
}

fn kv_values(quad: KvQuad) -> vec4<f32> {
    return quad;
}
