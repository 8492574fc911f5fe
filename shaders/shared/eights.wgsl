// Eight weights, of which there are four in a block. After `weights`, beside a binding `words` of single words.

// Their words, VECS of them, first ones first.
fn eight_words(at: u32) -> array<vec4<u32>, 2> {
    let first = at * VECS;
    var low = vec4(words[first], 0u, 0u, 0u);
    var high = vec4<u32>();
    if VECS > 1u {
        low.y = words[first + 1u];
    }
    if VECS > 2u {
        low.z = words[first + 2u];
        low.w = words[first + 3u];
    }
    if VECS > 4u {
        high = vec4(words[first + 4u], words[first + 5u], words[first + 6u], words[first + 7u]);
    }
    return array(low, high);
}
