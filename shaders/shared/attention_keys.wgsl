// What OWNED keys of attention are walked through by; `key_ranges` is a binding of the kernel.

// The tokens that may see an owned key: x .. y.
fn keys_span(first_key: u32) -> vec2<u32> {
    var span = vec2(params.tokens, 0u);
    for (var key = first_key; key < min(first_key + OWNED, params.keys); key++) {
        let range = vec2<u32>(max(key_ranges[key], vec2(0)));
        if range.x < range.y {
            span = vec2(min(span.x, range.x), max(span.y, min(range.y, params.tokens)));
        }
    }
    return vec2(span.x, max(span.x, span.y));
}
