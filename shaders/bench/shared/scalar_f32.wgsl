// Family `scalar`: what a kernel that counts its own steps computes with.
alias Scalar = f32;
