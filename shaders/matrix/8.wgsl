// Family `matrix`: the device's products of 8 x 8 matrices, f16 factors and f32 sums. Needs cooperative matrices.
alias MatrixA = coop_mat8x8<f16, A>;
alias MatrixB = coop_mat8x8<f16, B>;
alias MatrixC = coop_mat8x8<f32, C>;
