//! The gate of SwiGLU (*GLU Variants Improve Transformer*, equation 6).

/// `silu(gate) * up` for rows `[gate, up]`, each half of them `size` wide.
pub fn gate_mlp(gate_up: &[f32], size: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(gate_up.len() / 2);
    for row in gate_up.chunks_exact(2 * size) {
        let (gate, up) = row.split_at(size);
        // Below -88 exp would overflow; the gate is closed.
        let silu = |gate: f32| if gate < -88.0 { 0.0 } else { gate / (1.0 + (-gate).exp()) };
        out.extend(gate.iter().zip(up).map(|(&gate, up)| silu(gate) * up));
    }
    out
}
