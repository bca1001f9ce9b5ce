// Family `scalar`: the type of a kernel that counts its own steps.
alias Scalar = f32;
