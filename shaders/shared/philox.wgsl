// Philox4x32-10 (Salmon et al., SC 2011): random words by counter and key.

fn multiply(a: u32, b: u32) -> vec2<u32> { // high and low word of a * b
    let a0 = a & 0xffffu;
    let a1 = a >> 16u;
    let b0 = b & 0xffffu;
    let b1 = b >> 16u;
    let low = a0 * b0;
    let middle = a1 * b0 + (low >> 16u);
    let carry = a0 * b1 + (middle & 0xffffu);
    return vec2(a1 * b1 + (middle >> 16u) + (carry >> 16u), a * b);
}

fn philox(counter: vec4<u32>, key: vec2<u32>) -> vec4<u32> {
    var c = counter;
    var k = key;
    for (var i = 0u; i < 10u; i++) {
        let p = multiply(0xD2511F53u, c.x);
        let q = multiply(0xCD9E8D57u, c.z);
        c = vec4(q.x ^ c.y ^ k.x, q.y, p.x ^ c.w ^ k.y, p.y);
        k += vec2(0x9E3779B9u, 0xBB67AE85u);
    }
    return c;
}
