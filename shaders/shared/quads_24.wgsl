// Heads of up to 96 numbers.

const QUADS: u32 = 24u;

alias Row = array<vec4<f32>, QUADS>; // a head, zeros past its width
