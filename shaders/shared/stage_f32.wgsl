// Factors of a product wait in workgroup memory as 32-bit floats.

alias Factors = vec4<f32>;

fn staged_x(v: vec4<f32>) -> Factors {
    return v;
}

fn staged_weight(v: vec4<f32>) -> Factors {
    return v;
}
