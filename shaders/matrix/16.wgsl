// Family `matrix`: the device's products of 16 x 16 matrices, f16 factors and f32 sums. Needs cooperative matrices.
alias MatrixA = coop_mat16x16<f16, A>;
alias MatrixB = coop_mat16x16<f16, B>;
alias MatrixC = coop_mat16x16<f32, C>;
