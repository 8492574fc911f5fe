// Factors of a product wait in workgroup memory as 16-bit floats. Inputs reach further than those and
// weights less far, so that 16 moves from one to the other; products are the same.

alias Factors = vec4<f16>;

const SHIFT: f32 = 16.0;
const HIGHEST_F16: vec4<f32> = vec4(65504.0);

fn staged_x(v: vec4<f32>) -> Factors {
    return Factors(clamp(v / SHIFT, -HIGHEST_F16, HIGHEST_F16));
}

fn staged_weight(v: vec4<f32>) -> Factors {
    return Factors(clamp(v * SHIFT, -HIGHEST_F16, HIGHEST_F16));
}
