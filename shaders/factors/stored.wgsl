// Family `factors`: elements of q, k and v as factors of matrix products. Here unchanged.
fn prepare_factors(tile: Tile, own_row: u32) {}

fn factor_q(elem: QElem4, tile: Tile, head: u32) -> vec4<f16> {
    return elem;
}

fn factor_k(elem: KElem4) -> vec4<f16> {
    return elem;
}

fn factor_v(elem: VElem4) -> vec4<f16> {
    return elem;
}

fn score_scale(i: u32) -> f32 {
    return params.scale;
}

fn unscaled4(mean: vec4<f32>, non_finite: bool) -> vec4<f32> {
    return mean;
}
