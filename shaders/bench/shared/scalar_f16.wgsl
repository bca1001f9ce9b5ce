// Family `scalar`: the type of a kernel that counts its own steps. Needs SHADER_F16.
alias Scalar = f16;
