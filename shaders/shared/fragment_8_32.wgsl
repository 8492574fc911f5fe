// Cooperative matrices of 8 x 8, subgroups of 32.

const SIDE: u32 = 8u;
const LANES: u32 = 32u;

alias Left = coop_mat8x8<f16, A>;
alias Right = coop_mat8x8<f16, B>;
alias Sum = coop_mat8x8<f32, C>;
