// Family `scalar`: what a kernel that counts its own steps computes with. Needs SHADER_F16.
alias Scalar = f16;
