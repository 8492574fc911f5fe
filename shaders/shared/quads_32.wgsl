// Heads of up to 128 numbers.

const QUADS: u32 = 32u;

alias Row = array<vec4<f32>, QUADS>; // a head, zeros past its width
