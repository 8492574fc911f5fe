// Rows of attention: the query heads that share a key head, token after token.

// Where row stands in what is [tokens, n_heads], and with quads in q and y. Rows past the end repeat the last one.
fn head_row(row: u32, kv_head: u32) -> u32 {
    let at = min(row, params.tokens * params.group - 1u);
    return (at / params.group * params.n_kv_heads + kv_head) * params.group + at % params.group;
}
