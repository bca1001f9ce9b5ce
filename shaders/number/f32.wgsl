// Family `number`: single numbers of a tensor, by their place. Here f32.
@group(0) @binding(NUMBERS_BINDING) var<storage, read> numbers: array<f32>;

fn number_at(at: u32) -> f32 {
    return numbers[at];
}
